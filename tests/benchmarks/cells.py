"""Cells to measure on: real ones where the data is there, else made-up ones that say so."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Lattice, Structure

DATA = Path(os.environ.get("RUNG_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
_FRAMES = DATA / "derived-mptrj-format" / "mp_tasks_in_mptrj_format.json.gz"
_ELEMENTS = DATA / "matpes-element-refs" / "MatPES-r2SCAN-Element-Refs.json.gz"


def cells() -> tuple[list[Structure], str]:
    """Every fourth frame of the relaxations and every element, and where they come from."""
    if not (_FRAMES.is_file() and _ELEMENTS.is_file()):
        return [_oxide(seed) for seed in range(120)], "perturbed oxides"
    with gzip.open(_FRAMES, "rt") as file:
        frames = [frame for material in json.load(file).values() for frame in material.values()][::4]
    with gzip.open(_ELEMENTS, "rt") as file:
        elements = list(json.load(file).values())
    return [Structure.from_dict(entry["structure"]) for entry in frames + elements], "MP frames, MatPES elements"


def sized_like_mptrj(structures: list[Structure], number: int) -> list[Structure]:
    """Cells as large as MPtrj's: supercells of these with a median of about 22 atoms, shaken."""
    rng = np.random.default_rng(0)
    drawn = [structures[choice].copy() for choice in rng.integers(0, len(structures), number)]
    for cell, atoms in zip(drawn, mptrj_like_atoms(rng, number), strict=True):
        while len(cell) * np.sqrt(2) < min(atoms, 200):
            scaling = np.ones(3, dtype=int)
            scaling[np.argmin(cell.lattice.abc)] = 2
            cell.make_supercell(scaling)
    return [_shaken(cell, rng, scale=0.03) for cell in drawn]


def mptrj_like_atoms(rng: np.random.Generator, number: int) -> NDArray[np.int64]:
    """Draw atoms per structure, (number,), as in MPtrj: log-normal with median 22 and mean 31, at most 444."""
    spread = np.sqrt(2 * np.log(31 / 22))
    return np.clip(22 * rng.lognormal(sigma=spread, size=number), 1, 444).astype(np.int64)


def _oxide(seed: int) -> Structure:
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.3), ["Mn", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    cell.make_supercell([1 + seed % 4, 1 + seed % 3, 1])
    return _shaken(cell, np.random.default_rng(seed), scale=0.1)


def _shaken(cell: Structure, rng: np.random.Generator, scale: float) -> Structure:
    moved = cell.cart_coords + rng.normal(scale=scale, size=(len(cell), 3))
    return Structure(cell.lattice, cell.species, moved, coords_are_cartesian=True)
