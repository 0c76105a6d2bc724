"""What a model predicts of records, beside their labels."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from chgnet.model import CHGNet
from numpy.typing import NDArray
from torch import Tensor

from rung.config.sections import BatchConfig, DataConfig
from rung.data.batch import GraphBatch
from rung.data.dataset import ShardDataset
from rung.data.loader import evaluation_batches
from rung.data.sampler import evaluation_plans
from rung.model.chgnet import Prediction, evaluate
from rung.training.metrics import TARGETS, Metrics
from rung.training.predictions import energies_of_plans

PER_ATOM: Final = ("force", "magmom")
"""Targets with a row for each atom; the others have one for each structure."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One target where it has a label, in the order of the records; energy eV/atom, force eV/Å, stress GPa, magmom μB.

    Stress is positive under tension, moments are absolute values.

    Attributes:
        label: one row for each structure, or each atom of it: (k,), force (k, 3), stress (k, 3, 3).
        prediction: of the same shape.
        row: (k,) which of the compared records the row belongs to.
        atomic_numbers: (k,) of the atoms; empty for targets of structures.
    """

    label: NDArray[np.float64]
    prediction: NDArray[np.float64]
    row: NDArray[np.int64]
    atomic_numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def error(self) -> NDArray[np.float64]:
        """Prediction minus label, (k, ...)."""
        return self.prediction - self.label

    @property
    def error_of_row(self) -> NDArray[np.float64]:
        """Mean absolute error of each row over its components, (k,)."""
        return np.abs(self.error).reshape(len(self), -1).mean(axis=1)

    def among(self, chosen: NDArray[np.bool_]) -> "Compared":
        """The rows that a mask (k,) chooses."""
        numbers = self.atomic_numbers[chosen] if len(self.atomic_numbers) else self.atomic_numbers
        return Compared(self.label[chosen], self.prediction[chosen], self.row[chosen], numbers)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A model on some records of a data set.

    Attributes:
        record_ids: (n,) ascending.
        targets: by name, those with a label at all.
    """

    record_ids: NDArray[np.int64]
    targets: Mapping[str, Compared]

    def among(self, chosen: NDArray[np.bool_]) -> "Comparison":
        """The records that a mask (n,) chooses; rows keep their numbers."""
        parts = {name: compared.among(chosen[compared.row]) for name, compared in self.targets.items()}
        return Comparison(self.record_ids, {name: part for name, part in parts.items() if len(part)})

    def errors(self) -> Metrics:
        """MAE and RMSE of each target over its labels, as `rung.training.metrics` names them."""
        found: Metrics = {}
        for name, compared in self.targets.items():
            found[f"{name}_mae"] = float(np.abs(compared.error).mean())
            found[f"{name}_rmse"] = math.sqrt(float(np.square(compared.error).mean()))
        return found


def compare(
    model: CHGNet, dataset: ShardDataset, record_ids: NDArray[np.int64], data: DataConfig, batch: BatchConfig
) -> Comparison:
    """Predict records and put the predictions beside the labels.

    Args:
        model: on the device to compute on.
        dataset: the data set.
        record_ids: (n,) ascending.
        data: how its batches are read.
        batch: limits of one evaluation.

    Raises:
        DamagedShardError: a shard cannot be read.
    """
    parts: dict[str, list[Compared]] = {target: [] for target in TARGETS}
    device = next(model.parameters()).device
    plans = evaluation_plans(dataset.index, record_ids, batch, 0, 1)
    for _, batches in evaluation_batches(dataset, plans, data, "evaluating"):
        for each in batches:
            rows = np.searchsorted(record_ids, each.record_ids.numpy())
            on_device = each.to(device)
            for target, part in _compared(on_device, evaluate(model, on_device), rows):
                parts[target].append(part)
    return Comparison(record_ids, {name: joined for name, found in parts.items() if len(joined := _join(found))})


def predict_energies(
    model: CHGNet, dataset: ShardDataset, record_ids: NDArray[np.int64], data: DataConfig, batch: BatchConfig
) -> NDArray[np.float64]:
    """Energies of records, (n,) in the order of their ascending ids, eV/atom; nothing is differentiated.

    Arguments and errors are those of `compare`.
    """
    plans = evaluation_plans(dataset.index, record_ids, batch, 0, 1)
    return energies_of_plans(model, dataset, record_ids, plans, data).cpu().numpy()


def _compared(batch: GraphBatch, prediction: Prediction, rows: NDArray[np.int64]) -> Iterator[tuple[str, Compared]]:
    """Each target of one batch where its label is present."""
    owner = batch.atom_owner
    pairs: dict[str, tuple[Tensor | None, Tensor, Tensor]] = {
        "energy": (prediction.energy, batch.energy, batch.has_energy),
        "force": (prediction.forces, batch.forces, batch.has_forces[owner]),
        "stress": (prediction.stress, batch.stress, batch.has_stress),
        "magmom": (prediction.magmoms, batch.magmoms, batch.has_magmoms[owner]),
    }
    atoms, numbers = owner.cpu().numpy(), batch.atomic_numbers.cpu().numpy()
    for target, (predicted, label, present) in pairs.items():
        assert predicted is not None  # noqa: S101 - everything was asked for
        chosen = present.cpu().numpy()
        per_atom = target in PER_ATOM
        yield (
            target,
            Compared(
                label.double().cpu().numpy()[chosen],
                predicted.detach().double().cpu().numpy()[chosen],
                (rows[atoms] if per_atom else rows)[chosen],
                numbers[chosen] if per_atom else numbers[:0],
            ),
        )


def _join(parts: list[Compared]) -> Compared:
    """All parts in the order of the records; atoms keep theirs."""
    row = np.concatenate([part.row for part in parts])
    order = np.argsort(row, kind="stable")
    label, prediction = (np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "prediction"))
    numbers = np.concatenate([part.atomic_numbers for part in parts])
    return Compared(label[order], prediction[order], row[order], numbers[order] if len(numbers) else numbers)
