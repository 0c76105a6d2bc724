"""Surrogate data: deterministic, growing, the same structures for both functionals, labelled by the bundled models."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from chgnet.model import CHGNet
from pymatgen.core import Element, Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from data_prep.convert import prepare
from data_prep.sources.prototypes import PROTOTYPES, elements_for, formula, lattice_constant, unit_cell
from data_prep.sources.surrogate import FRAMES_PER_MATERIAL, SurrogateParser, SurrogateSource
from data_prep.verify import verify
from rung.config.preparation import GraphConfig
from rung.config.tree import PrepareConfig
from rung.data.dataset import ShardDataset
from rung.data.graph import graph_record


@pytest.fixture(scope="module")
def records():
    def label(functional: str, num: int):
        source = SurrogateSource(SurrogateParser("surrogate", functional, 0), num)
        return [frame.record for frame in source.parser(list(source.frames()))]

    return {functional: label(functional, 64) for functional in ("GGA", "r2SCAN")}


def test_prototypes():
    sizes = {prototype.name: len(unit_cell(prototype).roles) for prototype in PROTOTYPES}
    assert sizes["rocksalt"] == 2
    assert sizes["perovskite"] == 5
    assert sizes["spinel"] == 14
    assert max(sizes.values()) == 14
    named = {prototype.name: prototype for prototype in PROTOTYPES}
    assert formula(named["perovskite"], ["Sr", "Ti", "O"]) == "SrTiO3"
    assert formula(named["spinel"], ["Mg", "Al", "O"]) == "MgAl2O4"
    assert lattice_constant(named["rocksalt"], ["Mg", "O"], [2, -2]) == pytest.approx(4.21, abs=0.1)
    assert lattice_constant(named["fcc"], ["Cu"], [0]) == pytest.approx(3.61, abs=0.05)
    assert lattice_constant(named["perovskite"], ["Sr", "Ti", "O"], [2, 4, -2]) == pytest.approx(3.91, abs=0.15)


@pytest.fixture(params=PROTOTYPES, ids=lambda prototype: prototype.name)
def prototype(request):
    return request.param


@pytest.fixture
def structure(prototype):
    """The prototype with a = 5 Å and a placeholder element for each role."""
    cell = unit_cell(prototype)
    return Structure(Lattice(5 * cell.lattice), [("H", "He", "Li")[role] for role in cell.roles], cell.frac_coords)


def test_cells_have_the_space_group_of_their_name(prototype, structure):
    assert SpacegroupAnalyzer(structure).get_space_group_symbol() == prototype.spacegroup


def test_nearest_pairs_are_those_of_the_table(prototype, structure):
    roles = unit_cell(prototype).roles
    centre, neighbour, _, distance = structure.get_neighbor_list(8.0)
    for first, second, length in prototype.bonds:
        pairs = (roles[centre] == first) & (roles[neighbour] == second)
        assert distance[pairs].min() / 5 == pytest.approx(length, rel=2e-3)


def test_every_element_of_every_role_is_known():
    for prototype in PROTOTYPES:
        for charges in prototype.charges:
            for role, charge in enumerate(charges):
                for symbol in elements_for(charge):
                    symbols = [elements_for(other)[0] for other in charges]
                    symbols[role] = symbol
                    assert 1.5 < lattice_constant(prototype, symbols, charges) < 12
                    assert Element(symbol).Z <= 94


def test_same_structures_for_both_functionals(records):
    for gga, r2scan in zip(records["GGA"], records["r2SCAN"], strict=True):
        assert (gga.material_id, gga.frame_id) == (r2scan.material_id, r2scan.frame_id)
        assert gga.atomic_numbers.tolist() == r2scan.atomic_numbers.tolist()
        np.testing.assert_array_equal(gga.lattice, r2scan.lattice)
        np.testing.assert_array_equal(gga.frac_coords, r2scan.frac_coords)
        assert (gga.functional, r2scan.functional) == ("GGA", "r2SCAN")
        assert gga.energy != r2scan.energy


def test_frames_of_a_material(records):
    frames = Counter(record.material_id for record in records["GGA"])
    assert all(count % FRAMES_PER_MATERIAL == 0 for count in frames.values())
    assert len({record.frame_id for record in records["GGA"]}) == 64
    first, second = records["GGA"][:2]
    assert np.abs(first.forces).max() < np.abs(second.forces).max()
    assert not np.allclose(first.lattice, second.lattice)


def test_labels_are_upstreams(records):
    for functional, name in (("GGA", "0.3.0"), ("r2SCAN", "r2scan")):
        model = CHGNet.load(model_name=name, use_device="cpu", verbose=False)
        for record in records[functional][1:40:13]:
            structure = Structure(record.lattice, record.atomic_numbers, record.frac_coords)
            expected = model.predict_structure(structure)
            assert record.energy / record.num_atoms == pytest.approx(float(expected["e"]), abs=1e-4)
            np.testing.assert_allclose(record.forces, expected["f"], atol=1e-3)
            np.testing.assert_allclose(record.stress, expected["s"], atol=2e-2)
            np.testing.assert_allclose(record.magmoms, expected["m"], atol=1e-3)


def test_a_larger_set_begins_with_the_same_structures(records):
    parser = SurrogateParser("surrogate", "GGA", 0)
    for number, record in enumerate(records["GGA"]):
        again = parser.structure(number)
        assert again.frame_id == record.frame_id
        np.testing.assert_array_equal(again.frac_coords, record.frac_coords)


def test_another_seed_makes_other_structures(records):
    other = SurrogateParser("surrogate", "GGA", 1)
    assert [other.structure(n).material_id for n in range(0, 64, 4)] != [r.material_id for r in records["GGA"][::4]]


def test_elements_can_be_chosen():
    chosen = ("Li", "Mg", "Al", "Ti", "Fe", "O", "F")
    parser = SurrogateParser("surrogate", "GGA", 0, chosen)
    records = [parser.structure(number) for number in range(0, 800, FRAMES_PER_MATERIAL)]
    drawn = Counter(Element.from_Z(int(z)).symbol for record in records for z in set(record.atomic_numbers))
    assert drawn.keys() == set(chosen)
    assert len({record.material_id.split("-")[1] for record in records}) > 8, "most prototypes remain"


@pytest.mark.parametrize(("elements", "message"), [(["Fe", "He"], "names He"), (["O", "F"], "no structure")])
def test_elements_that_make_no_structure_are_refused(tmp_path, elements, message):
    source = {"kind": "surrogate", "functional": "GGA", "elements": elements}
    with pytest.raises(ValueError, match=message):
        prepare(PrepareConfig.model_validate({"output": str(tmp_path / "out"), "source": source}))


def test_cells_are_sane():
    """Many structures: no atom alone, none overlapping, small cells, forces that a model can learn."""
    parser = SurrogateParser("surrogate", "GGA", 3)
    sizes, elements = [], set()
    for number in range(400):
        record = parser.structure(number)
        graph = graph_record(record, GraphConfig())
        vectors = (
            graph.frac_coords[graph.bond_atoms[:, 0]] - graph.frac_coords[graph.bond_atoms[:, 1]] - graph.bond_image
        )
        assert np.linalg.norm(vectors @ graph.lattice, axis=1).min() > 1.2
        sizes.append(record.num_atoms)
        elements.update(record.atomic_numbers.tolist())
    assert 2 <= min(sizes) <= max(sizes) <= 14
    assert np.mean(sizes) < 6
    assert len(elements) > 45


def test_prepared(tmp_path):
    config = PrepareConfig.model_validate(
        {"output": str(tmp_path / "out"), "source": {"kind": "surrogate", "functional": "r2SCAN", "num_structures": 70}}
    )
    summary = prepare(config)
    assert (summary.records_kept, summary.records_rejected) == (70, {})
    dataset = ShardDataset(config.output)
    assert set(dataset.index.source.tolist()) == {b"surrogate"}
    assert dataset.manifest.source["labelled_by"] == "CHGNet r2scan"
    assert dataset.manifest.source["is_dft"] is False
    assert np.all(dataset.index.labels == 15)
    assert verify(Path(config.output)).problems == ()
