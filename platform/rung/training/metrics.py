"""Exact errors: sums and counts are added over batches and ranks, and divided once.

Names are `<target>_mae` and `<target>_rmse` with target energy (eV/atom), force (eV/Å, per component), stress (GPa, per
component) and magmom (μB), and `loss`. A target without a single label, or not predicted, has no entry.
"""

import math

import torch
from torch import Tensor

from rung.training.distributed import sum_over_ranks

TARGETS = ("energy", "force", "stress", "magmom")
"""Order of targets wherever they are rows."""

Metrics = dict[str, float]


class ErrorSums:
    """Running sums of penalty, |error| and error² and the number of labels, for each target: (4 targets, 4), float64.

    The result does not depend on how records were batched or spread over ranks: errors agree to float64's rounding,
    the penalties, which come as sums over a batch, to float32's.
    """

    PENALTY, ABSOLUTE, SQUARE, COUNT = range(4)

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(TARGETS), 4, dtype=torch.float64, device=device)

    def add(self, sums: Tensor) -> None:
        """Add the (4, 4) sums of one batch."""
        self.sums += sums.to(self.sums)

    def reduced(self) -> Tensor:
        """The (4, 4) sums over all ranks, as a new tensor on the CPU."""
        return sum_over_ranks(self.sums.clone()).cpu()

    def clear(self) -> None:
        """Start again from nothing."""
        self.sums.zero_()


def errors_from_sums(sums: Tensor, weights: tuple[float, float, float, float]) -> Metrics:
    """Turn sums over all ranks into errors, and the loss as the weighted sum of each target's mean penalty.

    Args:
        sums: (4, 4), as in `ErrorSums`.
        weights: of the targets in the loss.

    Returns:
        empty without a single label.
    """
    metrics: Metrics = {}
    loss = 0.0
    for target, weight, (penalty, absolute, square, count) in zip(TARGETS, weights, sums.tolist(), strict=True):
        if count == 0:
            continue
        loss += weight * penalty / count
        metrics[f"{target}_mae"] = absolute / count
        metrics[f"{target}_rmse"] = math.sqrt(square / count)
    return {"loss": loss, **metrics} if metrics else {}
