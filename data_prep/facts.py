"""What preparation must remember of each stored record, beyond its row of the index, to decide about the whole set.

One file beside each shard, in columns: decisions, manifest and report are made from these and the index alone, so a
record that was set aside can be put back without its source.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from data_prep.sources.base import ParsedFrame
from rung.data.dataset import files_of
from rung.data.index import read_columns, write_columns
from rung.data.record import Reason, StructureRecord
from rung.data.shard import ShardInfo

REASONS: Final = tuple(Reason)
"""Reasons in the order of their stored numbers."""

NO_REASON: Final = -1
_LENGTH_DIGITS: Final = 4  # Å
_FRACTION_DIGITS: Final = 5


def all_files_of(folder: Path, shard: ShardInfo) -> dict[Path, str]:
    """Files of a shard that training and repairs read, each with its SHA-256."""
    return {**files_of(folder, shard), facts_path(folder, shard.name): shard.facts_sha256}


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
    """Facts of one record; small enough to send beside it.

    Attributes:
        measures: one number for each of `MEASURES`; NaN where the label is absent.
        energy_key: key of the raw frame that gave the energy; empty without an energy.
        structure_hash: equal for equal structures, 64 bits.
        position: of its raw frame in the source.
        refusal: why the record alone, without the rest of the set, is set aside; None if it is not.
        detail: what was found and what is allowed.
    """

    measures: tuple[float, float, float, float]
    energy_key: str
    structure_hash: int
    position: int
    refusal: Reason | None = None
    detail: str = ""

    @classmethod
    def of(cls, parsed: ParsedFrame, position: int, refusal: tuple[Reason, str] | None) -> Self:
        """Measure a parsed frame."""
        record = parsed.record
        energy, forces, stress, magmoms = record.energy, record.forces, record.stress, record.magmoms
        measures = (
            math.nan if energy is None else energy / record.num_atoms,
            math.nan if forces is None else float(np.linalg.norm(forces.astype(np.float64), axis=1).max()),
            math.nan if stress is None else float(np.abs(stress).max()),
            math.nan if magmoms is None else float(magmoms.max()),
        )
        reason, detail = refusal or (None, "")
        return cls(measures, parsed.energy_key or "", structure_hash(record), position, reason, detail)


def structure_hash(record: StructureRecord) -> int:
    """A number that equal structures share: the lattice to 1e-4 Å and the atoms to 1e-5 of it, in any order."""
    # Adding 0 turns a negative zero into zero.
    lattice = np.round(record.lattice, _LENGTH_DIGITS) + 0.0
    places = np.round(record.frac_coords, _FRACTION_DIGITS) % 1.0 + 0.0
    atoms = np.column_stack((record.atomic_numbers, places))
    atoms = atoms[np.lexsort(atoms.T[::-1])]
    return int.from_bytes(blake2b(lattice.tobytes() + atoms.tobytes(), digest_size=8).digest(), "big")


@dataclass(frozen=True, eq=False, kw_only=True)
class FactsTable:
    """Facts of n records, in columns.

    Attributes:
        measures: (n, 4) float64, a column for each of `MEASURES`; NaN where the label is absent.
        energy_key: (n,) bytes.
        structure_hash: (n,) uint64.
        position: (n,) int64.
        refusal: (n,) int8, position in `REASONS`, or `NO_REASON`.
        detail_row: (m,) int64, ascending: the rows that have a detail.
        detail: (m,) bytes, UTF-8.
    """

    measures: NDArray[np.float64]
    energy_key: NDArray[np.bytes_]
    structure_hash: NDArray[np.uint64]
    position: NDArray[np.int64]
    refusal: NDArray[np.int8]
    detail_row: NDArray[np.int64]
    detail: NDArray[np.bytes_]

    @classmethod
    def of(cls, facts: Sequence[RecordFacts]) -> Self:
        """Put facts into columns."""
        detailed = [(row, each.detail.encode()) for row, each in enumerate(facts) if each.detail]
        return cls(
            measures=np.array([each.measures for each in facts], dtype="<f8").reshape(-1, len(MEASURES)),
            energy_key=np.array([each.energy_key.encode() for each in facts], dtype=np.bytes_),
            structure_hash=np.array([each.structure_hash for each in facts], dtype="<u8"),
            position=np.array([each.position for each in facts], dtype="<i8"),
            refusal=np.array(
                [NO_REASON if each.refusal is None else REASONS.index(each.refusal) for each in facts], dtype="|i1"
            ),
            detail_row=np.array([row for row, _ in detailed], dtype="<i8"),
            detail=np.array([text for _, text in detailed], dtype=np.bytes_),
        )

    def __len__(self) -> int:
        return len(self.position)

    @property
    def details(self) -> Mapping[int, str]:
        """Detail of each refused row."""
        return {int(row): text.decode() for row, text in zip(self.detail_row, self.detail.tolist(), strict=True)}

    @classmethod
    def load(cls, folder: Path, shards: Sequence[str]) -> Self:
        """Read the facts of several shards as one table.

        Raises:
            ShardError: a file is missing or damaged.
        """
        names = tuple(field.name for field in fields(cls))
        parts = [read_columns(facts_path(folder, shard), names) for shard in shards]
        starts = np.cumsum([0, *(len(part["position"]) for part in parts)])
        for part, start in zip(parts, starts, strict=False):
            part["detail_row"] = part["detail_row"] + start
        return cls(**{name: np.concatenate([part[name] for part in parts]) for name in names})

    def save(self, path: Path) -> None:
        """Write the table and bring it to disk; equal tables give equal bytes."""
        write_columns(path, {field.name: getattr(self, field.name) for field in fields(self)})


def facts_path(folder: Path, shard: str) -> Path:
    """File of facts beside a shard."""
    return folder / f"{shard}.facts.npz"
