"""The crystal graph: bonds within the cutoffs, stored once each, and the angles that follow from them.

A bond is undirected. It stands for two directed edges: edge d < num_bonds runs along bond d, with the first atom as
centre; edge d + num_bonds is the same bond seen from the second atom. The vector of an edge has CHGNet's sign,
x_centre - (x_neighbour + image @ lattice), so the two vectors of a bond differ in sign only.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.optimization.neighbors import find_points_in_spheres

from rung.config.preparation import GraphConfig
from rung.data.fields import FIELD
from rung.data.record import GraphRecord, Reason, RecordError, StructureRecord

MIN_DISTANCE: Final = 0.5
"""Å. Atoms closer than this are one atom listed twice or a broken cell; the shortest real bond, H2, has 0.74 Å."""

_PERIODIC: Final = np.ones(3, dtype=np.int64)
_DISTANCE_TOLERANCE: Final = 1e-8  # Å, upstream's: a pair at the cutoff to rounding is inside
_CLOSEST_PACKING: Final = np.sqrt(2) / MIN_DISTANCE**3  # atoms/Å³ of spheres with this distance; none can be denser
_MAX_ATOMS: Final = int(np.iinfo(FIELD["bond_atoms"].dtype).max) + 1
_MAX_IMAGE: Final = int(np.iinfo(FIELD["bond_image"].dtype).max)

# The sum of these weights times (neighbour - centre) and the image is positive for one direction of a bond and negative
# for the other, and 0 only for an atom with itself. Exact, since images within _MAX_IMAGE stay below each next weight.
_IMAGE_WEIGHTS: Final = np.array([2.0**16, 2.0**8, 1.0])
_ATOM_WEIGHT: Final = 2.0**24


@dataclass(frozen=True, eq=False, kw_only=True)
class CrystalGraph:
    """The bonds of one cell.

    Attributes:
        bond_atoms: (num_bonds, 2), first and second atom; bonds shorter than the bond cutoff come first.
        bond_image: (num_bonds, 3), the periodic image that holds the second atom, relative to the first one's.
        num_short_bonds: how many bonds are shorter than the bond cutoff.
        num_angles: ordered pairs of short edges with the same centre.
    """

    bond_atoms: NDArray[np.uint16]
    bond_image: NDArray[np.int8]
    num_short_bonds: int
    num_angles: int

    @property
    def num_bonds(self) -> int:
        """Number of undirected bonds."""
        return len(self.bond_atoms)


@dataclass(frozen=True, eq=False, kw_only=True)
class Angles:
    """Angles between short bonds at a common centre, sorted by `bond_i`.

    With the bond vectors v (first minus second atom), cos = sign * (v_i . v_j) / (|v_i| |v_j|).

    Attributes:
        centre: (num_angles,), atom.
        bond_i: (num_angles,), bond that is updated by this angle.
        bond_j: (num_angles,), the other bond; the same one where a bond joins an atom to its own image.
        sign: (num_angles,), int8: product of the directions of the two edges, +1 or -1.
    """

    centre: NDArray[np.int64]
    bond_i: NDArray[np.int64]
    bond_j: NDArray[np.int64]
    sign: NDArray[np.int8]


def build_graph(lattice: NDArray[np.float64], frac_coords: NDArray[np.float64], cutoffs: GraphConfig) -> CrystalGraph:
    """Find the bonds of a periodic cell: the same edges and the same number of angles as chgnet's converter.

    Args:
        lattice: (3, 3), rows, Å.
        frac_coords: (num_atoms, 3); images are relative to these coordinates.
        cutoffs: of the atom graph and of the bond graph, Å.

    Raises:
        RecordError: atoms without a neighbour, on top of each other, or beyond what the stored types can number.
    """
    _check_size(lattice, len(frac_coords))
    lattice = np.ascontiguousarray(lattice, dtype=np.float64)  # the search reads raw memory
    positions = np.ascontiguousarray(frac_coords @ lattice)
    centre, neighbour, image, distance = find_points_in_spheres(
        positions, positions, r=cutoffs.atom_cutoff, pbc=_PERIODIC, lattice=lattice, tol=_DISTANCE_TOLERANCE
    )
    _check_neighbours(centre, image, len(frac_coords), cutoffs.atom_cutoff)
    # Each bond is found from both its atoms, and each atom finds itself at distance 0: keep one direction of the bonds.
    forward = np.flatnonzero((neighbour - centre) * _ATOM_WEIGHT + image @ _IMAGE_WEIGHTS > 0)
    length = distance[forward]
    if length.min() < MIN_DISTANCE:
        raise _overlap(centre[forward], neighbour[forward], length)
    short = length < cutoffs.bond_cutoff
    num_short = int(np.count_nonzero(short))
    order = np.concatenate([forward[short], forward[~short]])
    bond_atoms = np.empty((len(order), 2), dtype=FIELD["bond_atoms"].dtype)
    bond_atoms[:, 0] = centre[order]
    bond_atoms[:, 1] = neighbour[order]
    return CrystalGraph(
        bond_atoms=bond_atoms,
        bond_image=image.take(order, axis=0).astype(FIELD["bond_image"].dtype),
        num_short_bonds=num_short,
        num_angles=count_angles(bond_atoms[:num_short]),
    )


def graph_record(record: StructureRecord, cutoffs: GraphConfig, record_id: int = -1) -> GraphRecord:
    """Build the graph of a record and join the two.

    Raises:
        RecordError: see `build_graph`.
    """
    graph = build_graph(record.lattice, record.frac_coords, cutoffs)
    return GraphRecord(
        lattice=record.lattice,
        energy=record.energy,
        frac_coords=record.frac_coords,
        stress=record.stress,
        forces=record.forces,
        magmoms=record.magmoms,
        bond_atoms=graph.bond_atoms,
        bond_image=graph.bond_image,
        atomic_numbers=record.atomic_numbers,
        num_short_bonds=graph.num_short_bonds,
        num_angles=graph.num_angles,
        record_id=record_id,
    )


def count_angles(short_bond_atoms: NDArray[np.integer]) -> int:
    """Number of angles between these bonds (num_short_bonds, 2): k (k - 1) at an atom with k short edges."""
    edges = np.bincount(short_bond_atoms.ravel())
    return int(np.dot(edges, edges - 1))


def line_graph(first: NDArray[np.integer], second: NDArray[np.integer]) -> Angles:
    """Derive all angles from the short bonds of one graph or of a whole batch.

    Args:
        first: (num_short_bonds,), first atom of each bond, numbered through the batch.
        second: (num_short_bonds,), second atom.
    """
    num_bonds = len(first)
    # Edges are handled as 2 * bond + (0 along the bond, 1 against it): angles made edge by edge are sorted by bond.
    centre = np.empty(2 * num_bonds, dtype=np.int32)
    centre[0::2], centre[1::2] = first, second
    by_centre = np.argsort(centre, kind="stable").astype(np.int32)
    degree = np.bincount(centre)
    group_start = (np.cumsum(degree) - degree).astype(np.int32)
    rank = np.empty(2 * num_bonds, dtype=np.int32)
    rank[by_centre] = np.arange(2 * num_bonds, dtype=np.int32)

    partners = (degree - 1)[centre]
    edge_i = np.repeat(np.arange(2 * num_bonds, dtype=np.int32), partners)
    # Walk through the edges of the same centre, stepping over edge i itself.
    angle_start = np.cumsum(partners) - partners
    slot = np.arange(len(edge_i), dtype=np.int32) + (group_start[centre] - angle_start).astype(np.int32)[edge_i]
    slot += slot >= rank[edge_i]
    edge_j = by_centre[slot]
    return Angles(
        centre=centre[edge_i].astype(np.int64),
        bond_i=(edge_i >> 1).astype(np.int64),
        bond_j=(edge_j >> 1).astype(np.int64),
        sign=(1 - 2 * ((edge_i ^ edge_j) & 1)).astype(np.int8),
    )


def _check_size(lattice: NDArray[np.float64], num_atoms: int) -> None:
    """Refuse what the search itself could not survive: it would fill the memory with the pairs of such a cell."""
    if num_atoms > _MAX_ATOMS:
        raise RecordError(Reason.TOO_LARGE, f"{num_atoms} atoms in one cell; the format numbers up to {_MAX_ATOMS}")
    a, b, c = lattice.tolist()
    volume = abs(
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
    )
    shortest = min(math.hypot(*vector) for vector in (a, b, c))
    if num_atoms > volume * _CLOSEST_PACKING or shortest < MIN_DISTANCE:
        raise RecordError(
            Reason.OVERLAPPING_ATOMS,
            f"{num_atoms} atoms in {volume:.3g} Å³ with a shortest lattice vector of {shortest:.3g} Å"
            f" cannot all be {MIN_DISTANCE} Å apart",
        )


def _check_neighbours(centre: NDArray[np.int64], image: NDArray[np.float64], num_atoms: int, cutoff: float) -> None:
    """Refuse atoms that found only themselves, and images that the format cannot number."""
    found = np.bincount(centre, minlength=num_atoms)
    if found.min() < 2:
        alone = np.flatnonzero(found < 2)
        raise RecordError(
            Reason.ISOLATED_ATOM,
            f"{len(alone)} of {num_atoms} atoms have no neighbour within {cutoff} Å, the first is atom {alone[0]}",
        )
    farthest = int(image.max())  # also of the negative ones: each bond is there in both directions
    if farthest > _MAX_IMAGE:
        raise RecordError(
            Reason.TOO_LARGE,
            f"a bond reaches {farthest} cells away; the format counts to {_MAX_IMAGE}: reduce the cell",
        )


def _overlap(first: NDArray[np.int64], second: NDArray[np.int64], length: NDArray[np.float64]) -> RecordError:
    at = int(length.argmin())
    return RecordError(
        Reason.OVERLAPPING_ATOMS,
        f"atoms {first[at]} and {second[at]} are {length[at]:.3g} Å apart; less than {MIN_DISTANCE} Å is no bond",
    )
