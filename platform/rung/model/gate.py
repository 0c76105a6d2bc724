"""The gated perceptron's elementwise part, where most of a training step is spent.

CHGNet's every message is `silu(norm(core)) * sigmoid(norm(gate))` (Deng et al. 2023, eq. 5, the function phi), applied
to each directed bond and each angle, and differentiated twice because forces are derivatives. It has one entrance,
`gate`, so that a faster kernel replaces nothing else.
"""

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from chgnet.model.functions import GatedMLP
from torch import Tensor


def gate(block: GatedMLP, core: Tensor, opening: Tensor) -> Tensor:
    """Normalise both halves, then let the second open or close the first.

    Args:
        block: holder of the two layer normalisations.
        core: (..., feature_dim) what the message says.
        opening: (..., feature_dim) how much of it passes.

    Returns:
        (..., feature_dim)
    """
    return F.silu(block.bn1(core)) * torch.sigmoid(block.bn2(opening))
