"""The loss: for each target the mean penalty over the labels that are present in the global batch, times its weight.

A sum of Huber penalties of energy per atom, forces, stress and moments is CHGNet's (Deng et al., Nat. Mach. Intell. 5,
1031 (2023), Methods). Units of the residuals are eV/atom, eV/Å, GPa and μB; the penalties are added without them.

Normalising by the global number of labels, instead of averaging per-rank means, makes the gradient independent of how
the batch is spread over ranks and micro-batches, and a structure without, say, magmoms does not dilute the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rung.config.sections import LossConfig
from rung.data.batch import GraphBatch
from rung.data.sampler import LabelCounts
from rung.model.chgnet import Prediction
from rung.training.metrics import TARGETS


@dataclass(frozen=True)
class TargetErrors:
    """Residuals of one batch, prediction minus label, with the absent labels masked."""

    penalties: Tensor
    """(4,) sum of penalties per target, in the order of `TARGETS`, differentiable."""
    sums: Tensor
    """(4, 4) penalty, |error|, error² and count per target (rows), float64, detached."""


def loss_weights(config: LossConfig) -> tuple[float, float, float, float]:
    """Weights in the order of `TARGETS`."""
    return (config.energy, config.force, config.stress, config.magmom)


def penalty(residual: Tensor, config: LossConfig) -> Tensor:
    """Elementwise penalty of residuals r of any shape.

    mse: r²; mae: |r|; huber, as in torch: r²/2 below delta, delta (|r| - delta/2) above (Huber, Ann. Math. Statist. 35,
    73 (1964)).
    """
    if config.kind == "mse":
        return residual.square()
    if config.kind == "mae":
        return residual.abs()
    return functional.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=config.delta)


def target_errors(prediction: Prediction, batch: GraphBatch, config: LossConfig) -> TargetErrors:
    """Compare a prediction with the labels of its batch.

    Targets that were not predicted count nothing. Masks multiply instead of selecting: a selection would make the GPU
    wait for its size.
    """
    atom_owner = batch.atom_owner
    pairs = {
        "energy": (prediction.energy, batch.energy, batch.has_energy),
        "force": (prediction.forces, batch.forces, batch.has_forces[atom_owner, None]),
        "stress": (prediction.stress, batch.stress, batch.has_stress[:, None, None]),
        "magmom": (prediction.magmoms, batch.magmoms, batch.has_magmoms[atom_owner]),
    }
    penalties, sums = [], []
    for target in TARGETS:
        predicted, label, present = pairs[target]
        if predicted is None:
            penalties.append(label.new_zeros(()))
            sums.append(label.new_zeros(4).double())
            continue
        residual = torch.where(present, predicted - label, torch.zeros_like(label))
        penalty_sum = penalty(residual, config).sum()
        error = residual.detach().double()
        count = present.expand_as(label).sum()
        penalties.append(penalty_sum)
        sums.append(
            torch.stack((penalty_sum.detach().double(), error.abs().sum(), error.square().sum(), count.double()))
        )
    return TargetErrors(torch.stack(penalties), torch.stack(sums))


def loss_of(errors: TargetErrors, counts: LabelCounts, config: LossConfig) -> Tensor:
    """This rank's share of the global loss: summed over ranks and micro-batches it is the loss of the global batch.

    Args:
        errors: of a micro-batch.
        counts: of the global batch.
        config: weights.

    Returns:
        a scalar, differentiable.
    """
    # Where no label is in the global batch, the penalties are zeros already.
    scales = [
        weight / max(count, 1) for weight, count in zip(loss_weights(config), counts.in_target_order(), strict=True)
    ]
    return (errors.penalties * errors.penalties.new_tensor(scales)).sum()
