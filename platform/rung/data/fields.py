"""The fields of a stored record, each declared once; the codec, the record and the batch loop over this table."""

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import Final

import numpy as np


class Level(StrEnum):
    """What a field has one row for."""

    GRAPH = "graph"
    ATOM = "atom"
    BOND = "bond"


class Labels(IntFlag):
    """Which labels a record carries. Part of the stored format: never renumber."""

    NONE = 0
    ENERGY = 1
    FORCES = 2
    STRESS = 4
    MAGMOMS = 8


@dataclass(frozen=True, kw_only=True)
class Field:
    """One array of a record.

    Attributes:
        name: attribute of `GraphRecord`.
        level: the rows of the array: none for the graph, else one per atom or per bond.
        dtype: stored type, little-endian.
        shape: trailing shape, after the rows.
        unit: physical unit; empty for counts and indices.
        meaning: one sentence.
        label: the flag that says the field is there; None for fields of every record.
    """

    name: str
    level: Level
    dtype: np.dtype
    shape: tuple[int, ...]
    unit: str
    meaning: str
    label: Labels | None = None

    def full_shape(self, num_atoms: int, num_bonds: int) -> tuple[int, ...]:
        """Shape of the whole array in a record of this size."""
        if self.level is Level.GRAPH:
            return self.shape
        return (num_atoms if self.level is Level.ATOM else num_bonds, *self.shape)


def _field(name: str, level: Level, dtype: str, shape: tuple[int, ...], unit: str, meaning: str) -> Field:
    return Field(name=name, level=level, dtype=np.dtype(dtype), shape=shape, unit=unit, meaning=meaning)


def _label(label: Labels, level: Level, dtype: str, shape: tuple[int, ...], unit: str, meaning: str) -> Field:
    name = str(label.name).lower()
    return Field(name=name, level=level, dtype=np.dtype(dtype), shape=shape, unit=unit, meaning=meaning, label=label)


# Wide types come first, so that every array of a stored record starts at a multiple of its item size.
FIELDS: Final[tuple[Field, ...]] = (
    _field("lattice", Level.GRAPH, "<f8", (3, 3), "Å", "lattice vectors as rows"),
    _label(Labels.ENERGY, Level.GRAPH, "<f8", (), "eV", "total energy of the cell, the data set's own label"),
    _field("frac_coords", Level.ATOM, "<f8", (3,), "", "fractional coordinates in [0, 1)"),
    _label(Labels.STRESS, Level.GRAPH, "<f4", (3, 3), "GPa", "stress, positive under tension"),
    _label(Labels.FORCES, Level.ATOM, "<f4", (3,), "eV/Å", "forces"),
    _label(Labels.MAGMOMS, Level.ATOM, "<f4", (), "μB", "absolute magnetic moments"),
    _field(
        "bond_atoms", Level.BOND, "<u2", (2,), "", "first and second atom of each undirected bond, short bonds first"
    ),
    _field("bond_image", Level.BOND, "|i1", (3,), "", "periodic image of the second atom, relative to the first"),
    _field("atomic_numbers", Level.ATOM, "|u1", (), "", "atomic numbers, 1 to 94"),
)

FIELD: Final[dict[str, Field]] = {field.name: field for field in FIELDS}
