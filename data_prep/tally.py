"""What a data set holds, counted while it is written: records, reasons, splits, elements, label statistics."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from pymatgen.core import Element

from data_prep.filters import Rejection
from rung.config.preparation import SplitConfig
from rung.data.index import SPLITS, IndexRow
from rung.data.record import StructureRecord


@dataclass(frozen=True)
class Measure:
    """One number that describes a label of a record: its name, meaning and unit."""

    label: str
    meaning: str
    unit: str


MEASURES: Final = (
    Measure("energy", "energy per atom", "eV/atom"),
    Measure("forces", "largest force on an atom", "eV/Å"),
    Measure("stress", "largest component of the stress, without sign", "GPa"),
    Measure("magmoms", "largest magnetic moment", "μB"),
)


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """What the manifest counts of a record beyond its row of the index; small enough to send beside it.

    Attributes:
        measures: one number for each of `MEASURES`; None where the label is absent.
        energy_key: key of the raw frame that gave the energy; None without an energy.
    """

    measures: tuple[float | None, ...]
    energy_key: str | None

    @classmethod
    def of(cls, record: StructureRecord, energy_key: str | None) -> Self:
        """Measure a record."""
        energy, forces, stress, magmoms = record.energy, record.forces, record.stress, record.magmoms
        return cls(
            measures=(
                None if energy is None else energy / record.num_atoms,
                None if forces is None else float(np.linalg.norm(forces.astype(np.float64), axis=1).max()),
                None if stress is None else float(np.abs(stress).max()),
                None if magmoms is None else float(magmoms.max()),
            ),
            energy_key=energy_key,
        )


@dataclass(slots=True)
class RunningStatistics:
    """Mean, spread and extremes of a stream of numbers (Welford), with the names of the extremes."""

    num: int = 0
    mean: float = 0.0
    square_sum: float = 0.0
    smallest: tuple[float, str] = (math.inf, "")
    largest: tuple[float, str] = (-math.inf, "")

    def add(self, value: float, name: str) -> None:
        """Take in one number."""
        self.num += 1
        delta = value - self.mean
        self.mean += delta / self.num
        self.square_sum += delta * (value - self.mean)
        if value < self.smallest[0]:
            self.smallest = (value, name)
        if value > self.largest[0]:
            self.largest = (value, name)

    def to_json(self) -> dict[str, Any]:
        """The statistics; without numbers, their count alone."""
        if not self.num:
            return {"records": 0}
        return {
            "records": self.num,
            "mean": self.mean,
            "std": math.sqrt(self.square_sum / self.num),
            "min": self.smallest[0],
            "min_record": self.smallest[1],
            "max": self.largest[0],
            "max_record": self.largest[1],
        }


@dataclass
class Tally:
    """Counts over a whole data set.

    Attributes:
        num_read: raw records.
        num_kept: records stored.
        rejected: rejections by reason.
        examples: the first rejection of each reason.
    """

    num_read: int = 0
    num_kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Rejection] = field(default_factory=dict)
    _functionals: Counter[str] = field(default_factory=Counter)
    _elements: Counter[int] = field(default_factory=Counter)
    _energy_keys: Counter[str] = field(default_factory=Counter)
    _splits: Counter[int] = field(default_factory=Counter)
    _materials: dict[str, int] = field(default_factory=dict)
    _statistics: tuple[RunningStatistics, ...] = field(
        default_factory=lambda: tuple(RunningStatistics() for _ in MEASURES)
    )

    def reject(self, rejection: Rejection) -> None:
        """Count a rejection."""
        self.num_read += 1
        self.rejected[rejection.reason.value] += 1
        self.examples.setdefault(rejection.reason.value, rejection)

    def keep(self, row: IndexRow, facts: RecordFacts, split: int) -> None:
        """Count a stored record."""
        self.num_read += 1
        self.num_kept += 1
        self._functionals[row.functional] += 1
        self._elements.update(row.elements)
        self._splits[split] += 1
        self._materials[row.material_id] = split
        if facts.energy_key is not None:
            self._energy_keys[facts.energy_key] += 1
        name = f"{row.material_id}/{row.frame_id}"
        for statistics, value in zip(self._statistics, facts.measures, strict=True):
            if value is not None:
                statistics.add(value, name)

    @property
    def energy_keys(self) -> Counter[str]:
        """Records by the raw key of their energy."""
        return self._energy_keys

    def to_manifest(self, split: SplitConfig) -> dict[str, Any]:
        """The manifest's sections that are counts."""
        materials = Counter(self._materials.values())
        return {
            "counts": {"read": self.num_read, "kept": self.num_kept, "rejected": dict(sorted(self.rejected.items()))},
            "split": {
                **split.model_dump(),
                "records": {name: self._splits[i] for i, name in enumerate(SPLITS)},
                "materials": {name: materials[i] for i, name in enumerate(SPLITS)},
            },
            "functionals": dict(sorted(self._functionals.items())),
            "elements": {Element.from_Z(z).symbol: self._elements[z] for z in sorted(self._elements)},
            "labels": {
                measure.label: {"measure": measure.meaning, "unit": measure.unit, **statistics.to_json()}
                for measure, statistics in zip(MEASURES, self._statistics, strict=True)
            }
            | {"energy_keys": dict(sorted(self._energy_keys.items()))},
        }
