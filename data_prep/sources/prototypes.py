"""Crystal prototypes to substitute elements into, with lattice constants from ionic and metallic radii."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Lattice, Species, Structure

_BUILD_EDGE: Final = 5.0
"""Å. Cells are built at this size and scaled: pymatgen's symmetry tolerances are lengths."""

_PLACEHOLDERS: Final = ("H", "He", "Li")

CATIONS: Final[dict[int, str]] = {
    1: "Li Na K Rb Cs Cu Ag",
    2: "Be Mg Ca Sr Ba Zn Cd V Cr Mn Fe Co Ni Cu Pd Pb Eu",
    3: "Al Ga In Sc Y La Ti V Cr Mn Fe Co Ni Nd Gd",
    4: "Ti Zr Hf Sn Ce Mn Si Ge V Mo W Ru Ir Pt",
    5: "V Nb Ta Sb",
}
"""Elements that stand at a site of this charge."""

ANIONS: Final[dict[int, str]] = {-1: "F Cl Br I", -2: "O S Se Te", -3: "N"}

METALS: Final = "Li Na K Mg Ca Al Ti V Cr Mn Fe Co Ni Cu Zn Zr Nb Mo Ru Rh Pd Ag Hf Ta W Re Os Ir Pt Au Y La Sc Sr Ba"
"""Elements that stand at a site of charge 0."""


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """A structure type.

    Attributes:
        name: its usual name.
        spacegroup: international symbol.
        ratio: c/a; 1 is cubic.
        hexagonal: whether the axes are hexagonal, else they are orthogonal.
        sites: for each role (A, B, X) one fractional coordinate of its orbit.
        bonds: nearest pairs of roles with their distance in units of a.
        charges: the charges that the roles may have together.
        primitive: whether the primitive cell is used, else the conventional one.
    """

    name: str
    spacegroup: str
    ratio: float = 1.0
    hexagonal: bool = False
    sites: tuple[tuple[float, float, float], ...]
    bonds: tuple[tuple[int, int, float], ...]
    charges: tuple[tuple[int, ...], ...]
    primitive: bool = True


_SALTS: Final = ((1, -1), (2, -2), (3, -3))
_DIHALIDES: Final = ((2, -1), (4, -2))
_ORIGIN: Final = (0.0, 0.0, 0.0)
_CENTRE: Final = (0.5, 0.5, 0.5)
_QUARTER: Final = (0.25, 0.25, 0.25)

PROTOTYPES: Final[tuple[Prototype, ...]] = (
    Prototype(name="rocksalt", spacegroup="Fm-3m", sites=(_ORIGIN, _CENTRE), bonds=((0, 1, 0.5),), charges=_SALTS),
    Prototype(
        name="cesium-chloride",
        spacegroup="Pm-3m",
        sites=(_ORIGIN, _CENTRE),
        bonds=((0, 1, sqrt(3) / 2),),
        charges=(*_SALTS, (0, 0)),
    ),
    Prototype(
        name="zincblende", spacegroup="F-43m", sites=(_ORIGIN, _QUARTER), bonds=((0, 1, sqrt(3) / 4),), charges=_SALTS
    ),
    Prototype(
        name="wurtzite",
        spacegroup="P6_3mc",
        ratio=1.633,
        hexagonal=True,
        sites=((1 / 3, 2 / 3, 0.0), (1 / 3, 2 / 3, 0.375)),
        bonds=((0, 1, 0.612),),
        charges=_SALTS,
    ),
    Prototype(
        name="fluorite", spacegroup="Fm-3m", sites=(_ORIGIN, _QUARTER), bonds=((0, 1, sqrt(3) / 4),), charges=_DIHALIDES
    ),
    Prototype(
        name="antifluorite",
        spacegroup="Fm-3m",
        sites=(_QUARTER, _ORIGIN),
        bonds=((0, 1, sqrt(3) / 4),),
        charges=((1, -2),),
    ),
    Prototype(
        name="rutile",
        spacegroup="P4_2/mnm",
        ratio=0.65,
        sites=(_ORIGIN, (0.305, 0.305, 0.0)),
        bonds=((0, 1, 0.431),),
        charges=_DIHALIDES,
    ),
    Prototype(
        name="perovskite",
        spacegroup="Pm-3m",
        sites=(_CENTRE, _ORIGIN, (0.5, 0.0, 0.0)),
        bonds=((1, 2, 0.5), (0, 2, sqrt(2) / 2)),
        charges=((1, 2, -1), (2, 4, -2), (1, 5, -2), (3, 3, -2)),
    ),
    Prototype(
        name="layered",
        spacegroup="R-3m",
        ratio=5.0,
        hexagonal=True,
        sites=((0.0, 0.0, 0.5), _ORIGIN, (0.0, 0.0, 0.2395)),
        bonds=((1, 2, 0.744), (0, 2, 0.683)),
        charges=((1, 3, -2),),
    ),
    Prototype(
        name="spinel",
        spacegroup="Fd-3m",
        sites=(_ORIGIN, (0.625, 0.625, 0.625), (0.3875, 0.3875, 0.3875)),  # origin at the A site
        bonds=((0, 2, 0.238), (1, 2, 0.2377)),
        charges=((2, 3, -2),),
    ),
    Prototype(
        name="fcc", spacegroup="Fm-3m", sites=(_ORIGIN,), bonds=((0, 0, sqrt(2) / 2),), charges=((0,),), primitive=False
    ),
    Prototype(
        name="bcc", spacegroup="Im-3m", sites=(_ORIGIN,), bonds=((0, 0, sqrt(3) / 2),), charges=((0,),), primitive=False
    ),
    Prototype(
        name="hcp",
        spacegroup="P6_3/mmc",
        ratio=1.633,
        hexagonal=True,
        sites=((1 / 3, 2 / 3, 0.25),),
        bonds=((0, 0, 1.0),),
        charges=((0,),),
    ),
    Prototype(
        name="auricupride",
        spacegroup="Pm-3m",
        sites=(_ORIGIN, (0.5, 0.5, 0.0)),
        bonds=((0, 1, sqrt(2) / 2), (1, 1, sqrt(2) / 2)),
        charges=((0, 0),),
    ),
)


@dataclass(frozen=True, eq=False)
class UnitCell:
    """A prototype's cell for a = 1.

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
    """Build a prototype's cell from its space group."""
    edges = (_BUILD_EDGE, _BUILD_EDGE * prototype.ratio)
    lattice = Lattice.hexagonal(*edges) if prototype.hexagonal else Lattice.tetragonal(*edges)
    placeholders = _PLACEHOLDERS[: len(prototype.sites)]
    structure = Structure.from_spacegroup(prototype.spacegroup, lattice, placeholders, prototype.sites)
    if prototype.primitive:
        structure = structure.get_primitive_structure()
    roles = [_PLACEHOLDERS.index(site.specie.symbol) for site in structure]
    return UnitCell(structure.lattice.matrix / _BUILD_EDGE, structure.frac_coords, np.array(roles))


def elements_for(charge: int) -> Sequence[str]:
    """Symbols of the elements that may stand at a site of this charge."""
    if charge == 0:
        return METALS.split()
    return (CATIONS[charge] if charge > 0 else ANIONS[charge]).split()


def lattice_constant(prototype: Prototype, symbols: Sequence[str], charges: Sequence[int]) -> float:
    """The smallest a, in Å, at which no nearest pair is closer than the sum of its radii."""
    radii = [_radius(symbol, charge) for symbol, charge in zip(symbols, charges, strict=True)]
    return max((radii[i] + radii[j]) / length for i, j, length in prototype.bonds)


def formula(prototype: Prototype, symbols: Sequence[str]) -> str:
    """Formula of one cell with the counts divided by their common divisor, roles in order: SrTiO3."""
    counts = np.bincount(unit_cell(prototype).roles)
    counts //= np.gcd.reduce(counts)
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in zip(symbols, counts, strict=True))


@cache
def _radius(symbol: str, charge: int) -> float:
    radius = Species(symbol, charge).ionic_radius if charge else Element(symbol).metallic_radius
    if radius is None:
        raise ValueError(f"pymatgen knows no radius of {symbol} with charge {charge}")
    return float(radius)
