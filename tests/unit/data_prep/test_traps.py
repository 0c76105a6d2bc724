"""The traps of real data, one test each, on the real files; a made one where no real file has it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.convert import prepare
from data_prep.decide import LabelsLieError
from data_prep.functionals import functional_name
from data_prep.quarantine_file import read_quarantine
from rung.config.tree import PrepareConfig
from rung.data.dataset import ShardDataset
from rung.data.fields import Labels
from rung.data.index import SPLITS
from tests.unit.data_prep.vasp_samples import vasprun, vasprun_step


@pytest.fixture
def prepared(shared_data, tmp_path):
    """Prepare a part of the real data; returns the set and the lines of its quarantine by their names."""

    def make(kind: str, path: str, name: str = "out", filters=None, split=None, **source):
        given = {"kind": kind, "path": [str(shared_data / part) for part in path.split(" ")], **source}
        config = {"output": str(tmp_path / name), "source": given, "parallel": {"workers": 1}}
        config |= {"filters": filters or {}, "split": split or {}}
        prepare(PrepareConfig.model_validate(config))
        lines = read_quarantine(tmp_path / name)
        return ShardDataset(tmp_path / name), {f"{each['material_id']}/{each['frame_id']}": each for each in lines}

    return make


def per_atom(dataset: ShardDataset) -> np.ndarray:
    return dataset.index.energy / dataset.index.num_atoms


@pytest.mark.parametrize(
    ("kind", "path"), [("mp_api", "emmet-tasks/tasks_Li_Fe_V.json.gz"), ("vasp", "chgnet-vasp/no-magmoms")]
)
def test_1_energies_near_zero_in_old_runs(prepared, kind, path):
    """e_0_energy is about 0; the free energy is right, and asking for another one is refused."""
    dataset, _ = prepared(kind, path, filters={"duplicates": "keep"})
    energies = per_atom(dataset)[dataset.index.split < len(SPLITS)]
    assert energies.max() < -1.0
    with pytest.raises(ValueError, match=r"set source\.energy to free"):
        prepared(kind, path, "zero", energy="zero_smearing")


def test_2_an_absurd_frame_among_good_ones(prepared):
    _, refused = prepared("vasp", "chgnet-vasp/no-magmoms")
    assert [(name, line["reason"]) for name, line in refused.items()] == [
        ("no-magmoms/no-magmoms-2", "overlapping_atoms")
    ]


def test_2_the_same_by_its_labels(prepared, monkeypatch):
    """Even where nobody looks at distances, its energy and force give it away."""
    monkeypatch.setattr("rung.data.graph.MIN_DISTANCE", 0.01)
    _, refused = prepared("vasp", "chgnet-vasp/no-magmoms")
    (line,) = refused.values()
    assert line["reason"] == "energy_outlier"
    assert line["detail"].startswith("referenced energy +62")


def test_3_a_tag_that_lies(shared_data, config_for, tmp_path):
    """Real PBE energies under an r2SCAN label: one among others is refused; a set of them is an error."""
    texts = {
        name: json.loads(gzip.decompress((shared_data / "matpes-element-refs" / name).read_bytes()))
        for name in ("MatPES-PBE-Element-Refs.json.gz", "MatPES-r2SCAN-Element-Refs.json.gz")
    }
    pbe, r2scan = texts.values()
    lying = {f"lie-{symbol}": record | {"functional": "r2SCAN"} for symbol, record in pbe.items()}
    path = tmp_path / "lies.json"
    path.write_text(json.dumps(r2scan | {"lie-W": lying["lie-W"] | {"matpes_id": "x", "provenance": None}}))
    config = config_for(path, "matpes")
    assert prepare(config).records_rejected == {"functional_mismatch": 1}
    heavy = {
        name: record for name, record in lying.items() if name.removeprefix("lie-") in ("W", "Pt", "Au", "Hf", "Ta")
    }
    path.write_text(json.dumps(heavy))
    with pytest.raises(LabelsLieError, match=r"correct source\.functional"):
        prepare(config_for(path, "matpes", output=str(tmp_path / "whole")))


def test_3_a_meta_gga_tag_beside_a_gga_tag(prepared):
    """The potentials and a GGA tag say PBE; the meta-GGA is what VASP calculates."""
    dataset, _ = prepared("vasp", "caneparesearch-r2scan/TiO2")
    assert set(dataset.index.functional.tolist()) == {b"r2SCAN"}


def test_4_names_of_functionals(shared_data):
    raw = ["R2SCAN", "r2SCAN", "PBE", "GGA", "PBESol", "R2scan", "R2SCA"]
    assert [functional_name(name) for name in raw] == ["r2SCAN", "r2SCAN", "GGA", "GGA", "PBEsol", "r2SCAN", "r2SCAN"]


def test_5_u_by_the_table_of_u(prepared):
    """Tasks state hubbards; LDAUU of some of them has more entries than elements."""
    dataset, _ = prepared("mp_api", "emmet-tasks/old_aflow_ggau_task.json.gz")
    assert set(dataset.index.functional.tolist()) == {b"GGA+U"}
    dataset, _ = prepared("mp_api", "emmet-tasks/magnetism", "magnetism")
    assert set(dataset.index.functional.tolist()) <= {b"GGA", b"GGA+U"}


def test_6_units_signs_and_order_of_stress(prepared, shared_data):
    """MatPES's Voigt order in kbar, in GPa under tension; absent stays absent (ASE's, VASP's: tests of the sources)."""
    dataset, _ = prepared("matpes", "matpes-element-refs/MatPES-PBE-Element-Refs.json.gz")
    path = shared_data / "matpes-element-refs" / "MatPES-PBE-Element-Refs.json.gz"
    for row, raw in enumerate(json.loads(gzip.decompress(path.read_bytes())).values()):
        xx, yy, zz, yz, xz, xy = raw["stress"]
        expected = -0.1 * np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        np.testing.assert_allclose(dataset[row].stress, expected, rtol=1e-5, atol=1e-6)
    oxides, _ = prepared("ase", "fairchem-oxides", "oxides", functional="PBE")
    assert not np.any(oxides.index.labels & Labels.STRESS)


def test_7_moments_missing_are_not_zero(prepared):
    tasks, _ = prepared("mp_api", "emmet-tasks/mp-1201400_task_doc.json.gz")
    having = tasks.index.labels & Labels.MAGMOMS > 0
    assert 0 < having.sum() < len(having)  # the final frame alone
    elements, _ = prepared("matpes", "matpes-element-refs/MatPES-PBE-Element-Refs.json.gz", "elements")
    assert np.all(elements.index.labels & Labels.MAGMOMS)
    assert min(record.magmoms.min() for record in elements.records.read(range(len(elements)))) >= 0


def test_8_kinds_of_calculation_and_steps_that_gave_up(prepared, tmp_path):
    _, refused = prepared("mp_api", "emmet-tasks/test_As2SO6_tasks.json.gz")
    kinds = {line["detail"].split("'")[1] for line in refused.values() if line["reason"] == "task_type"}
    assert kinds == {"nscf line", "nscf uniform", "dfpt dielectric"}
    run = tmp_path / "run" / "vasprun.xml"
    run.parent.mkdir()
    run.write_text(vasprun([vasprun_step(-20.0), vasprun_step(-20.5, electronic=60)]))
    _, refused = prepared("vasp", str(run.parent), "gave-up", filters={"functional_check": "off"})
    assert [line["reason"] for line in refused.values()] == ["unconverged"]


@pytest.mark.parametrize("charge", [0, 0.0, None])
@pytest.mark.parametrize("properties", [{}, None, "absent"])
@pytest.mark.parametrize("task_type", ["Static", None, {"value": "Static"}])
def test_9_forms_of_the_same_thing(charge, properties, task_type, structure, write, config_for):
    crystal = structure() | {"charge": charge}
    for site in crystal["sites"]:
        site["properties"] = properties
        if properties == "absent":
            del site["properties"]
    step = {"structure": crystal, "e_fr_energy": -8.0, "forces": [[0, 0, 0]] * 2}
    date = {"@class": "datetime", "string": "2018-03-20"}
    document = {"task_id": "mp-1", "task_type": task_type, "run_type": "GGA", "last_updated": date}
    document["calcs_reversed"] = [{"output": {"ionic_steps": [step]}}]
    assert prepare(config_for(write([document]), "mp_api")).records_kept == 1


def test_10_atoms_without_neighbours(prepared):
    _, refused = prepared("vasp", "caneparesearch-r2scan/O caneparesearch-r2scan/O2")
    assert [name for name, line in refused.items() if line["reason"] == "isolated_atom"] == ["r2SCAN/O/r2SCAN-1"]
    with pytest.raises(ValueError, match=r"no usable record among the 267 .*isolated_atom 267"):
        prepared("atoms", "isolated-atoms-mp/atomic_energies.csv", "atoms")


def test_11_a_reference_belongs_to_a_data_set(prepared):
    """Each set's manifest has references of its own, fitted to its own training records."""
    fits = []
    for number, (kind, path) in enumerate(
        [("vasp", "caneparesearch-r2scan/TiO2"), ("matpes", "matpes-element-refs/MatPES-r2SCAN-Element-Refs.json.gz")]
    ):
        dataset, _ = prepared(kind, path, f"set-{number}", split={"validation": 0, "test": 0})
        manifest = json.loads((Path(dataset.path) / "manifest.json").read_text())
        fits.append(manifest["references"]["r2SCAN"]["energies"])
    shared = fits[0].keys() & fits[1].keys()
    assert "O" in shared
    assert all(fits[0][element] != fits[1][element] for element in shared)


PAIRS = {
    "GGA": [("mptrj", "derived-mptrj-format"), ("matpes", "matpes-element-refs/MatPES-PBE-Element-Refs.json.gz")],
    "r2SCAN": [("matpes", "matpes-element-refs/MatPES-r2SCAN-Element-Refs.json.gz")],
}


@pytest.mark.parametrize("salt", ["rung", "a", "b"])
def test_no_material_tested_at_r2scan_is_trained_on_at_gga(prepared, salt):
    """On the real pairs: 63 elements are in both MatPES sets, and MPtrj's ids are of the same Materials Project."""
    materials = {}
    for functional, sources in PAIRS.items():
        for number, (kind, path) in enumerate(sources):
            dataset, _ = prepared(kind, path, f"{functional}-{number}", split={"salt": salt, "test": 0.3})
            for split in SPLITS:
                names = dataset.index.material_id[dataset.select(split)].tolist()
                materials.setdefault((functional, split), set()).update(names)
    both = set().union(*(materials["GGA", split] for split in SPLITS)) & set().union(
        *(materials["r2SCAN", split] for split in SPLITS)
    )
    assert len(both) >= 63
    tested = materials["r2SCAN", "test"] & both
    assert tested
    assert not materials["r2SCAN", "test"] & materials["GGA", "train"]
    for split in SPLITS:
        assert materials["r2SCAN", split] & both == materials["GGA", split] & both
