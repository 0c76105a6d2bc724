"""The graph against chgnet's own converter, and what it refuses."""

from collections import Counter

import numpy as np
import pytest
from chgnet.graph import CrystalGraphConverter
from pymatgen.core import Lattice, Structure

from rung.config.preparation import GraphConfig
from rung.data.graph import MIN_DISTANCE, build_graph, count_angles, line_graph
from rung.data.record import Reason, RecordError, wrap
from tests.unit.data.samples import CUTOFFS, awkward_cells, real_cells

AWKWARD = awkward_cells()


def chgnet_edges(cell, cutoffs):
    """Directed edges (centre, neighbour, image) of chgnet's graph, and its angles as pairs of edges."""
    converter = CrystalGraphConverter(
        atom_graph_cutoff=cutoffs.atom_cutoff, bond_graph_cutoff=cutoffs.bond_cutoff, on_isolated_atoms="error"
    )
    graph = converter(cell)
    images = graph.neighbor_image.numpy().astype(int)
    edges = [(*atoms, *image) for atoms, image in zip(graph.atom_graph.tolist(), images.tolist(), strict=True)]
    angles = [(edges[row[2]], edges[row[4]]) for row in graph.bond_graph.reshape(-1, 5).tolist()]
    return edges, angles


def undirected(edge):
    """Return the bond of a directed edge, and +1 or -1 for the direction."""
    first, second, *image = edge
    reverse = (second, first, *(-x for x in image))
    forward = first < second or (first == second and tuple(image) > (0, 0, 0))
    return (tuple(edge), 1) if forward else (reverse, -1)


def as_bond_angles(pairs):
    angles = Counter()
    for edge_i, edge_j in pairs:
        (bond_i, direction_i), (bond_j, direction_j) = undirected(edge_i), undirected(edge_j)
        angles[edge_i[0], bond_i, bond_j, direction_i * direction_j] += 1
    return angles


def our_edges(graph):
    """Directed edges of the graph, its bonds as tuples, and its angles in terms of them."""
    bonds = np.concatenate([graph.bond_atoms, graph.bond_image], axis=1, dtype=int)
    reverse = np.concatenate([bonds[:, 1::-1], -bonds[:, 2:]], axis=1)
    bonds = [tuple(bond) for bond in bonds.tolist()]
    edges = bonds + [tuple(edge) for edge in reverse.tolist()]
    short = graph.bond_atoms[: graph.num_short_bonds]
    angles = line_graph(short[:, 0], short[:, 1])
    rows = zip(*(x.tolist() for x in (angles.centre, angles.bond_i, angles.bond_j, angles.sign)), strict=True)
    return edges, Counter((centre, bonds[i], bonds[j], sign) for centre, i, j, sign in rows), angles


def assert_same_graph(cell, cutoffs=CUTOFFS):
    expected_edges, expected_angles = chgnet_edges(cell, cutoffs)
    graph = build_graph(cell.lattice.matrix, cell.frac_coords, cutoffs)
    edges, angles, arrays = our_edges(graph)
    assert Counter(edges) == Counter(expected_edges)
    assert angles == as_bond_angles(expected_angles)
    assert graph.num_angles == len(expected_angles) == len(arrays.centre)
    assert (np.diff(arrays.bond_i) >= 0).all()


@pytest.mark.parametrize("name", AWKWARD)
def test_same_graph_as_chgnet_in_awkward_cells(name):
    assert_same_graph(AWKWARD[name])


@pytest.mark.parametrize(
    "cutoffs", [GraphConfig(atom_cutoff=5, bond_cutoff=5), GraphConfig(atom_cutoff=4, bond_cutoff=2)]
)
def test_same_graph_as_chgnet_with_other_cutoffs(cutoffs):
    assert_same_graph(AWKWARD["no symmetry"], cutoffs)


def test_same_graph_as_chgnet_in_real_cells(shared_data):
    for _, cell in list(real_cells(shared_data))[::7]:
        assert_same_graph(cell)


def test_cases_are_what_they_are_called():
    graphs = {name: build_graph(cell.lattice.matrix, cell.frac_coords, CUTOFFS) for name, cell in AWKWARD.items()}
    assert graphs["bonds but no angle"].num_short_bonds == graphs["bonds but no angle"].num_angles == 0
    assert (graphs["one short bond"].num_short_bonds, graphs["one short bond"].num_angles) == (1, 0)
    assert graphs["one atom"].num_angles > 0
    assert np.abs(graphs["very skewed"].bond_image).max() > 4


def test_a_bond_at_the_cutoff_is_long():
    """chgnet lets such a bond update itself by shorter ones, with weight zero; rung leaves these angles out."""
    cell = Structure(np.diag([3.0, 5.0, 5.0]), ["Li", "H"], [[0, 0, 0], [0, 0.3, 0]])
    graph = build_graph(cell.lattice.matrix, cell.frac_coords, CUTOFFS)
    _, ours, _ = our_edges(graph)
    theirs = as_bond_angles(chgnet_edges(cell, CUTOFFS)[1])
    assert ours < theirs
    first, second = cell.frac_coords
    for _, (a, b, *image), _, _ in theirs - ours:
        between = (first if a == 0 else second) - (first if b == 0 else second) - image
        assert np.linalg.norm(between @ cell.lattice.matrix) == CUTOFFS.bond_cutoff


def test_bonds_are_listed_once_and_short_ones_first():
    cell = AWKWARD["no symmetry"]
    graph = build_graph(cell.lattice.matrix, cell.frac_coords, CUTOFFS)
    first, second = graph.bond_atoms.T.astype(int)
    fractional = cell.frac_coords[first] - cell.frac_coords[second] - graph.bond_image
    lengths = np.linalg.norm(fractional @ cell.lattice.matrix, axis=1)
    assert lengths[: graph.num_short_bonds].max() < CUTOFFS.bond_cutoff <= lengths[graph.num_short_bonds :].min()
    assert lengths.max() <= CUTOFFS.atom_cutoff
    edges, _, _ = our_edges(graph)
    assert len(set(edges)) == 2 * graph.num_bonds


def test_wrapping_moves_images_only():
    cell = AWKWARD["outside the cell"]
    wrapped = wrap(cell.frac_coords)
    shift = np.round(cell.frac_coords - wrapped).astype(int)
    assert np.abs(shift).max() >= 5
    inside, outside = (build_graph(cell.lattice.matrix, coords, CUTOFFS) for coords in (wrapped, cell.frac_coords))

    def bonds(graph, atom_shift):
        first, second = graph.bond_atoms.T.astype(int)
        images = graph.bond_image + atom_shift[second] - atom_shift[first]
        rows = zip(first.tolist(), second.tolist(), images.tolist(), strict=True)
        return {undirected((a, b, *image))[0] for a, b, image in rows}

    assert bonds(outside, shift) == bonds(inside, np.zeros_like(shift))


def test_line_graph_of_a_batch_is_that_of_its_graphs():
    rng = np.random.default_rng(0)
    graphs = [rng.integers(0, atoms, (bonds, 2)) for atoms, bonds in [(3, 8), (1, 2), (5, 0), (4, 1), (6, 20)]]
    atom_starts = np.cumsum([0, 3, 1, 5, 4])
    joined = np.concatenate([graph + start for graph, start in zip(graphs, atom_starts, strict=True)])
    angles = line_graph(joined[:, 0], joined[:, 1])
    expected = brute_force_angles(joined)
    found = zip(
        angles.centre.tolist(), angles.bond_i.tolist(), angles.bond_j.tolist(), angles.sign.tolist(), strict=True
    )
    assert Counter(found) == expected
    assert sum(count_angles(graph) for graph in graphs) == expected.total()


def brute_force_angles(bonds):
    edges = [(bond, 1, first) for bond, (first, _) in enumerate(bonds.tolist())]
    edges += [(bond, -1, second) for bond, (_, second) in enumerate(bonds.tolist())]
    return Counter(
        (centre, i, j, direction_i * direction_j)
        for a, (i, direction_i, centre) in enumerate(edges)
        for b, (j, direction_j, other) in enumerate(edges)
        if a != b and centre == other
    )


def test_order_of_the_arrays_in_memory_does_not_matter():
    cell = AWKWARD["no symmetry"]
    arrays = (cell.lattice.matrix, cell.frac_coords)
    rows, columns = build_graph(*arrays, CUTOFFS), build_graph(*(np.asfortranarray(x) for x in arrays), CUTOFFS)
    assert np.array_equal(rows.bond_atoms, columns.bond_atoms)
    assert np.array_equal(rows.bond_image, columns.bond_image)


def test_line_graph_of_nothing_is_empty():
    none = np.zeros(0, dtype=np.uint16)
    angles = line_graph(none, none)
    assert len(angles.centre) == len(angles.bond_i) == len(angles.bond_j) == len(angles.sign) == 0
    assert count_angles(np.zeros((0, 2), dtype=np.uint16)) == 0


def refused(lattice, frac_coords, cutoffs=CUTOFFS):
    with pytest.raises(RecordError) as caught:
        build_graph(np.array(lattice, dtype=float), np.array(frac_coords, dtype=float), cutoffs)
    return caught.value


def test_refuses_isolated_atoms():
    error = refused(np.eye(3) * 20, [[0, 0, 0], [0.05, 0, 0], [0.5, 0.5, 0.5]])
    assert error.reason is Reason.ISOLATED_ATOM
    assert "1 of 3" in error.detail
    assert "atom 2" in error.detail
    assert refused(np.eye(3) * 20, [[0, 0, 0]]).reason is Reason.ISOLATED_ATOM


@pytest.mark.parametrize("distance", [0.0, 0.1, MIN_DISTANCE * 0.99])
def test_refuses_overlapping_atoms(distance):
    error = refused(np.eye(3) * 5, [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5 + distance / 5]])
    assert error.reason is Reason.OVERLAPPING_ATOMS
    assert "1 and 2" in error.detail


def test_accepts_atoms_just_apart():
    apart = MIN_DISTANCE * 1.01 / 5
    assert build_graph(np.eye(3) * 5, np.array([[0, 0, 0], [0, 0, apart]]), CUTOFFS).num_bonds > 0


@pytest.mark.parametrize("lattice", [np.diag([1e-6, 1000, 1000]), np.diag([0.31, 0.31, 0.01]), np.eye(3) * 0.2])
def test_refuses_collapsed_cells_before_searching_them(lattice):
    assert refused(lattice, [[0, 0, 0]]).reason is Reason.OVERLAPPING_ATOMS


def test_refuses_what_the_stored_types_cannot_number():
    far = refused([[4, 0, 0], [4 * 130 + 1, 4, 0], [0, 0, 4]], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert far.reason is Reason.TOO_LARGE
    assert "reduce the cell" in far.detail
    many = refused(np.eye(3) * 1000, np.zeros((65_537, 3)))
    assert many.reason is Reason.TOO_LARGE
    assert "65537" in many.detail


def test_legacy_converter_agrees_too():
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    graph = CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3, algorithm="legacy")(cell)
    ours = build_graph(cell.lattice.matrix, cell.frac_coords, CUTOFFS)
    assert (2 * ours.num_bonds, ours.num_angles) == (len(graph.atom_graph), len(graph.bond_graph))
