"""Predictions as files: Parquet or extended XYZ, in parts that are joined at the end."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import ase.io
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from rung.config.inference import PredictionFormat
from rung.data.formula import reduced_formula
from rung.inference.work import Predicted
from rung.units import gpa_to_ase_stress

_ROWS: Final = pa.list_(pa.list_(pa.float32()))


def _column(name: str, kind: pa.DataType, unit: str | None = None) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit} if unit else None)


SCHEMA: Final = pa.schema(
    [
        _column("index", pa.int64()),
        _column("name", pa.string()),
        _column("formula", pa.string()),
        _column("num_atoms", pa.int32()),
        _column("energy", pa.float64(), "eV"),
        _column("energy_per_atom", pa.float64(), "eV/atom"),
        _column("forces", _ROWS, "eV/Å"),
        _column("stress", _ROWS, "GPa"),
        _column("magmoms", pa.list_(pa.float32()), "μB"),
    ]
)
"""Columns of the Parquet file; a property that was not asked for is null.

The energy is the cell's, forces are (num_atoms, 3), stress is (3, 3), positive under tension, moments are (num_atoms,)
absolute values."""


def write_parquet(rows: Sequence[Predicted], path: Path) -> None:
    """Write predictions as a table, one structure a row, atoms in the order of the input."""
    pq.write_table(pa.Table.from_pylist([_row(row) for row in rows], schema=SCHEMA), path)


def write_extxyz(rows: Sequence[Predicted], path: Path) -> None:
    """Write structures with their predictions as ASE's calculator results: eV, eV/Å, eV/Å³ (tension positive), μB."""
    path.touch()  # ASE makes no file for no frames
    if rows:
        ase.io.write(path, [_atoms(row) for row in rows], format="extxyz")


def join_parquet(parts: Iterable[Path], path: Path) -> None:
    """Join tables into one, a part at a time."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part, schema=SCHEMA))


def join_bytes(parts: Iterable[Path], path: Path) -> None:
    """Join text files into one."""
    with path.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)


WRITE: Final[dict[PredictionFormat, Callable[[Sequence[Predicted], Path], None]]] = {
    "parquet": write_parquet,
    "extxyz": write_extxyz,
}
JOIN: Final[dict[PredictionFormat, Callable[[Iterable[Path], Path], None]]] = {
    "parquet": join_parquet,
    "extxyz": join_bytes,
}


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSON, one a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _row(row: Predicted) -> dict[str, Any]:
    found, num_atoms = row.properties, len(row.atomic_numbers)
    arrays = {"forces": found.forces, "stress": found.stress, "magmoms": found.magmoms}
    return {
        "index": row.index,
        "name": row.name,
        "formula": reduced_formula(*np.unique(row.atomic_numbers, return_counts=True)),
        "num_atoms": num_atoms,
        "energy": found.energy_per_atom * num_atoms,
        "energy_per_atom": found.energy_per_atom,
        **{name: None if value is None else value.tolist() for name, value in arrays.items()},
    }


def _atoms(row: Predicted) -> Atoms:
    found = row.properties
    info = {"index": row.index, "name": row.name}
    atoms = Atoms(row.atomic_numbers, scaled_positions=row.frac_coords, cell=row.lattice, pbc=True, info=info)
    results: dict[str, Any] = {"energy": found.energy_per_atom * len(atoms)}
    if found.forces is not None:
        results["forces"] = found.forces.astype(np.float64)
    if found.stress is not None:
        results["stress"] = gpa_to_ase_stress(found.stress)
    if found.magmoms is not None:
        results["magmoms"] = found.magmoms.astype(np.float64)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
