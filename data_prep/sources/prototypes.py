"""Crystal prototypes to substitute elements into, with lattice constants from ionic and metallic radii.

The cells are written out: their space groups are checked in the tests, and generating them would take pymatgen seconds.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Species

CATIONS: Final[dict[int, str]] = {
    1: "Li Na K Rb Cs Cu Ag",
    2: "Be Mg Ca Sr Ba Zn Cd V Cr Mn Fe Co Ni Cu Pd Pb Eu",
    3: "Al Ga In Sc Y La Ti V Cr Mn Fe Co Ni Nd Gd",
    4: "Ti Zr Hf Sn Ce Mn Si Ge V Mo W Ru Ir Pt",
    5: "V Nb Ta Sb",
}
"""Elements that stand at a site of this charge, e."""

ANIONS: Final[dict[int, str]] = {-1: "F Cl Br I", -2: "O S Se Te", -3: "N"}

METALS: Final = "Li Na K Mg Ca Al Ti V Cr Mn Fe Co Ni Cu Zn Zr Nb Mo Ru Rh Pd Ag Hf Ta W Re Os Ir Pt Au Y La Sc Sr Ba"
"""Elements that stand at a site of charge 0."""


Vector = tuple[float, float, float]
Vectors = tuple[Vector, Vector, Vector]


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """A structure type.

    Attributes:
        name: its usual name.
        spacegroup: international symbol.
        lattice: rows, for a = 1.
        sites: for each role (A, B, X) the fractional coordinates of its atoms.
        bonds: nearest pairs of roles with their distance for a = 1.
        charges: the charges that the roles may have together, e.
    """

    name: str
    spacegroup: str
    lattice: Vectors
    sites: tuple[tuple[Vector, ...], ...]
    bonds: tuple[tuple[int, int, float], ...]
    charges: tuple[tuple[int, ...], ...]


def _tetragonal(ratio: float) -> Vectors:
    return (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, ratio)


def _hexagonal(ratio: float) -> Vectors:
    return (1.0, 0.0, 0.0), (-0.5, sqrt(3) / 2, 0.0), (0.0, 0.0, ratio)


def _rhombohedral(ratio: float) -> Vectors:
    """Primitive vectors of the hexagonal cell with three lattice points."""
    height, side = ratio / 3, 1 / sqrt(12)
    return (0.5, side, height), (-0.5, side, height), (0.0, -2 * side, height)


def _along_diagonal(*positions: float) -> tuple[Vector, ...]:
    return tuple((x, x, x) for x in positions)


def _spinel_anions(u: float) -> tuple[Vector, ...]:
    """The 32e orbit of Fd-3m in the primitive cell, inversion centre at the origin."""
    v = 0.5 - 3 * u
    half = ((u, u, u), (v, u, u), (u, v, u), (u, u, v))
    return *half, *((-x, -y, -z) for x, y, z in half)


_CUBIC: Final = _tetragonal(1.0)
_FACE_CENTRED: Final = ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0))
_FACES: Final = ((0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.0, 0.5, 0.5))
_EDGES: Final = ((0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.5))
_HEXAGONAL_PAIR: Final = ((1 / 3, 2 / 3, 0.0), (2 / 3, 1 / 3, 0.5))
_ORIGIN: Final = _along_diagonal(0.0)
_CENTRE: Final = _along_diagonal(0.5)
_QUARTER: Final = _along_diagonal(0.25)
_QUARTERS: Final = _along_diagonal(0.25, 0.75)

_SALTS: Final = ((1, -1), (2, -2), (3, -3))
_AX2: Final = ((2, -1), (4, -2))
_RUTILE_X: Final = ((0.305, 0.305, 0.0), (0.695, 0.695, 0.0), (0.195, 0.805, 0.5), (0.805, 0.195, 0.5))

PROTOTYPES: Final[tuple[Prototype, ...]] = (
    Prototype(
        name="rocksalt",
        spacegroup="Fm-3m",
        lattice=_FACE_CENTRED,
        sites=(_ORIGIN, _CENTRE),
        bonds=((0, 1, 0.5),),
        charges=_SALTS,
    ),
    Prototype(
        name="cesium-chloride",
        spacegroup="Pm-3m",
        lattice=_CUBIC,
        sites=(_ORIGIN, _CENTRE),
        bonds=((0, 1, sqrt(3) / 2),),
        charges=(*_SALTS, (0, 0)),
    ),
    Prototype(
        name="zincblende",
        spacegroup="F-43m",
        lattice=_FACE_CENTRED,
        sites=(_ORIGIN, _QUARTER),
        bonds=((0, 1, sqrt(3) / 4),),
        charges=_SALTS,
    ),
    Prototype(
        name="wurtzite",
        spacegroup="P6_3mc",
        lattice=_hexagonal(1.633),
        sites=(_HEXAGONAL_PAIR, ((1 / 3, 2 / 3, 0.375), (2 / 3, 1 / 3, 0.875))),
        bonds=((0, 1, 0.612),),
        charges=_SALTS,
    ),
    Prototype(
        name="fluorite",
        spacegroup="Fm-3m",
        lattice=_FACE_CENTRED,
        sites=(_ORIGIN, _QUARTERS),
        bonds=((0, 1, sqrt(3) / 4),),
        charges=_AX2,
    ),
    Prototype(
        name="antifluorite",
        spacegroup="Fm-3m",
        lattice=_FACE_CENTRED,
        sites=(_QUARTERS, _ORIGIN),
        bonds=((0, 1, sqrt(3) / 4),),
        charges=((1, -2),),
    ),
    Prototype(
        name="rutile",
        spacegroup="P4_2/mnm",
        lattice=_tetragonal(0.65),
        sites=((*_ORIGIN, *_CENTRE), _RUTILE_X),
        bonds=((0, 1, 0.4263),),
        charges=_AX2,
    ),
    Prototype(
        name="perovskite",
        spacegroup="Pm-3m",
        lattice=_CUBIC,
        sites=(_CENTRE, _ORIGIN, _EDGES),
        bonds=((1, 2, 0.5), (0, 2, sqrt(2) / 2)),
        charges=((1, 2, -1), (2, 4, -2), (1, 5, -2), (3, 3, -2)),
    ),
    Prototype(
        name="layered",
        spacegroup="R-3m",
        lattice=_rhombohedral(5.0),
        sites=(_CENTRE, _ORIGIN, _along_diagonal(0.2395, 0.7605)),
        bonds=((1, 2, 0.744), (0, 2, 0.683)),
        charges=((1, 3, -2),),
    ),
    Prototype(
        name="spinel",
        spacegroup="Fd-3m",
        lattice=_FACE_CENTRED,
        sites=(_along_diagonal(0.125, 0.875), (*_CENTRE, *_FACES), _spinel_anions(0.2625)),
        bonds=((0, 2, 0.2382), (1, 2, 0.2381)),
        charges=((2, 3, -2),),
    ),
    Prototype(
        name="fcc",
        spacegroup="Fm-3m",
        lattice=_CUBIC,
        sites=((*_ORIGIN, *_FACES),),
        bonds=((0, 0, sqrt(2) / 2),),
        charges=((0,),),
    ),
    Prototype(
        name="bcc",
        spacegroup="Im-3m",
        lattice=_CUBIC,
        sites=((*_ORIGIN, *_CENTRE),),
        bonds=((0, 0, sqrt(3) / 2),),
        charges=((0,),),
    ),
    Prototype(
        name="hcp",
        spacegroup="P6_3/mmc",
        lattice=_hexagonal(1.633),
        sites=(_HEXAGONAL_PAIR,),
        bonds=((0, 0, 1.0),),
        charges=((0,),),
    ),
    Prototype(
        name="auricupride",
        spacegroup="Pm-3m",
        lattice=_CUBIC,
        sites=(_ORIGIN, _FACES),
        bonds=((0, 1, sqrt(2) / 2), (1, 1, sqrt(2) / 2)),
        charges=((0, 0),),
    ),
)


@dataclass(frozen=True, eq=False)
class UnitCell:
    """A cell for a = 1.

    Attributes:
        lattice: (3, 3), rows, in units of a.
        frac_coords: (num_atoms, 3).
        roles: (num_atoms,), which role each atom plays.
    """

    lattice: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    roles: NDArray[np.int64]


@cache
def unit_cell(prototype: Prototype) -> UnitCell:
    """The cell of a prototype as arrays."""
    roles = np.repeat(np.arange(len(prototype.sites)), [len(sites) for sites in prototype.sites])
    return UnitCell(np.array(prototype.lattice), np.concatenate(prototype.sites), roles)


def elements_for(charge: int) -> Sequence[str]:
    """Symbols of the elements that may stand at a site of this charge."""
    if charge == 0:
        return METALS.split()
    return (CATIONS[charge] if charge > 0 else ANIONS[charge]).split()


def lattice_constant(prototype: Prototype, symbols: Sequence[str], charges: Sequence[int]) -> float:
    """The smallest a, in Å, at which no nearest pair is closer than the sum of its radii (pymatgen's table).

    Raises:
        ValueError: the table has no radius of an element with its charge.
    """
    radii = [_radius(symbol, charge) for symbol, charge in zip(symbols, charges, strict=True)]
    return max((radii[i] + radii[j]) / length for i, j, length in prototype.bonds)


def formula(prototype: Prototype, symbols: Sequence[str]) -> str:
    """Formula of one cell with the counts divided by their common divisor, roles in order: SrTiO3."""
    counts = np.bincount(unit_cell(prototype).roles)
    counts //= np.gcd.reduce(counts)
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in zip(symbols, counts, strict=True))


@cache
def _radius(symbol: str, charge: int) -> float:
    with warnings.catch_warnings():
        # For some ions pymatgen has the low-spin radius only, and says so each time.
        warnings.filterwarnings("ignore", message="No default ionic radius")
        radius = Species(symbol, charge).ionic_radius if charge else Element(symbol).metallic_radius
    if radius is None:
        raise ValueError(f"pymatgen knows no radius of {symbol} with charge {charge}")
    return float(radius)
