"""The elemental reference inside a model.

Fitting it to the target set before fine-tuning is what makes a GGA network transferable to r²SCAN (arXiv 2504.05565,
Method 4 against Methods 1 to 3).
"""

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.data.reference import NUM_ELEMENTS


def reference_of(model: CHGNet) -> NDArray[np.float64]:
    """Reference energy of each element in a model: (94,), eV/atom.

    Raises:
        ValueError: the model has no reference.
    """
    return _weight(model).detach().cpu().double().numpy()[0].copy()


def set_reference(model: CHGNet, energies: NDArray[np.floating]) -> None:
    """Replace a model's reference energies.

    Args:
        model: changed in place.
        energies: (94,), eV/atom.

    Raises:
        ValueError: not 94 finite energies, or the model has no reference.
    """
    if energies.shape != (NUM_ELEMENTS,) or not np.isfinite(energies).all():
        raise ValueError(f"a reference is {NUM_ELEMENTS} finite energies; found shape {energies.shape}: {energies}")
    weight = _weight(model)
    with torch.no_grad():
        weight[0] = weight.new_tensor(energies)


def train_reference(model: CHGNet, trained: bool) -> None:
    """Let a model's reference energies be trained with its network, or keep them as they are.

    Raises:
        ValueError: the model has no reference.
    """
    _weight(model).requires_grad_(trained)


def _weight(model: CHGNet) -> torch.nn.Parameter:
    if model.composition_model is None:
        raise ValueError("this CHGNet has no composition_model, so it has no reference energies to read or set")
    return model.get_parameter("composition_model.fc.weight")
