"""Errors of a model for each element, exact for any batch size and number of ranks."""

from typing import Final

import torch
from pymatgen.core import Element
from torch import Tensor

from rung.data.batch import GraphBatch
from rung.data.record import MAX_ATOMIC_NUMBER
from rung.model.chgnet import Prediction
from rung.training.distributed import sum_over_ranks
from rung.training.metrics import Metrics

ELEMENTS_NAME: Final = "elements.json"
"""File in a run's folder: errors by split and element."""

_TARGETS: Final = ("energy", "force", "magmom")


class ElementSums:
    """Running sums of absolute errors and numbers of labels: (3 targets, 2, 95), by atomic number, float64."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(_TARGETS), 2, MAX_ATOMIC_NUMBER + 1, dtype=torch.float64, device=device)

    def add(self, prediction: Prediction, batch: GraphBatch) -> None:
        """Add a batch: forces and moments of the element's atoms, energies of the structures that contain it."""
        owner, numbers = batch.atom_owner, batch.atomic_numbers
        contained = torch.zeros(batch.num_structures, MAX_ATOMIC_NUMBER + 1, dtype=torch.bool, device=owner.device)
        contained[owner, numbers] = True
        structures, elements = contained.nonzero(as_tuple=True)
        energy = (prediction.energy - batch.energy).abs()
        self._count("energy", elements, energy[structures], batch.has_energy[structures])
        if prediction.forces is not None:
            forces = (prediction.forces - batch.forces).abs().mean(dim=1)
            self._count("force", numbers, forces, batch.has_forces[owner])
        if prediction.magmoms is not None:
            magmoms = (prediction.magmoms - batch.magmoms).abs()
            self._count("magmom", numbers, magmoms, batch.has_magmoms[owner])

    def _count(self, target: str, elements: Tensor, errors: Tensor, present: Tensor) -> None:
        sums = self._sums[_TARGETS.index(target)]
        sums[0].index_add_(0, elements, torch.where(present, errors, torch.zeros_like(errors)).double())
        sums[1].index_add_(0, elements, present.double())

    def errors(self) -> dict[str, Metrics]:
        """Over all ranks: `energy_mae` (eV/atom), `force_mae` (eV/Å, per component), `magmom_mae` (μB) by symbol.

        An element without a label of a target has no entry for it.
        """
        sums = sum_over_ranks(self._sums.clone()).cpu()
        found: dict[str, Metrics] = {}
        for number in torch.nonzero(sums[:, 1].sum(dim=0))[:, 0].tolist():
            found[Element.from_Z(number).symbol] = {
                f"{target}_mae": float(sums[at, 0, number] / sums[at, 1, number])
                for at, target in enumerate(_TARGETS)
                if sums[at, 1, number] > 0
            }
        return found
