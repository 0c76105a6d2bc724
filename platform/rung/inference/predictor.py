"""What a model says of structures, evaluated together as far as budget and memory allow."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.inference import BudgetConfig, PropertyName
from rung.config.preparation import GraphConfig
from rung.data.batch import GraphBatch, collate
from rung.data.partition import pack
from rung.data.record import GraphRecord
from rung.model.chgnet import Prediction, evaluate
from rung.model.memory import is_out_of_memory
from rung.model.support import cutoffs_of

ALL_PROPERTIES: tuple[PropertyName, ...] = ("forces", "stress", "magmoms")


class TooLargeError(RuntimeError):
    """A structure that memory cannot hold, alone."""


@dataclass(frozen=True, eq=False)
class Properties:
    """Predictions for one structure; what was not asked for is None.

    Attributes:
        energy_per_atom: with the composition's reference, eV/atom.
        forces: (num_atoms, 3), eV/Å.
        stress: (3, 3), GPa, positive under tension.
        magmoms: (num_atoms,) absolute magnetic moments, μB.
    """

    energy_per_atom: float
    forces: NDArray[np.float32] | None
    stress: NDArray[np.float32] | None
    magmoms: NDArray[np.float32] | None

    @property
    def finite(self) -> bool:
        """Whether every number is one."""
        values = (self.energy_per_atom, self.forces, self.stress, self.magmoms)
        return all(bool(np.isfinite(value).all()) for value in values if value is not None)


class Predictor:
    """Evaluates a model.

    Args:
        model: put on the device.
        budget: bonds and angles that are evaluated at once.
        properties: what is predicted besides the energy.
        device: to compute on.
    """

    def __init__(
        self,
        model: CHGNet,
        budget: BudgetConfig | None = None,
        properties: Collection[PropertyName] = ALL_PROPERTIES,
        device: torch.device | str = "cpu",
    ) -> None:
        self._model = model.to(device).eval()
        self._budget = budget or BudgetConfig()
        self._wanted = {name: name in properties for name in ALL_PROPERTIES}
        self._device = device

    @property
    def cutoffs(self) -> GraphConfig:
        """Of the graphs that the model reads, Å."""
        return cutoffs_of(self._model)

    def predict(self, graphs: Sequence[GraphRecord]) -> list[Properties | TooLargeError]:
        """Predict for each graph, in their order; one too large for memory gets an error in its place.

        Raises:
            UnsupportedModelError: rung does not evaluate the model's architecture.
        """
        found: dict[int, Properties | TooLargeError] = {}
        bonds = np.array([graph.num_bonds for graph in graphs], dtype=np.int64)
        angles = np.array([graph.num_angles for graph in graphs], dtype=np.int64)
        for rows in pack(bonds, angles, self._budget.max_bonds, self._budget.max_angles):
            found.update(zip(rows.tolist(), self._together([graphs[row] for row in rows]), strict=True))
        return [found[row] for row in range(len(graphs))]

    def _together(self, graphs: list[GraphRecord]) -> list[Properties | TooLargeError]:
        """Predict for graphs as one batch; as two where they do not fit."""
        try:
            batch = collate(graphs).to(self._device)
            return list(_split(evaluate(self._model, batch, **self._wanted), batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(graphs) == 1:
                graph = graphs[0]
                text = f"{graph.num_atoms} atoms with {graph.num_bonds} bonds do not fit in memory"
                return [TooLargeError(text)]
        half = len(graphs) // 2  # outside the handler, which keeps the failed batch alive
        return self._together(graphs[:half]) + self._together(graphs[half:])


def _split(prediction: Prediction, batch: GraphBatch) -> list[Properties]:
    """Predictions of a batch, structure by structure."""
    counts = batch.num_atoms.tolist()
    energies = prediction.energy.tolist()
    forces, magmoms = (
        [None] * len(counts) if value is None else [part.numpy() for part in value.cpu().split(counts)]
        for value in (prediction.forces, prediction.magmoms)
    )
    stress = [None] * len(counts) if prediction.stress is None else list(prediction.stress.cpu().numpy())
    return [Properties(*each) for each in zip(energies, forces, stress, magmoms, strict=True)]
