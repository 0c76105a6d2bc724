"""Task documents and entries: frames, names, functional and +U, energies, moments, and every layout of a file."""

import json

import numpy as np
import pytest

from data_prep.sources.base import ParsedFrame, Rejection
from data_prep.sources.mp_api.documents import open_documents
from rung.config.preparation import SourceConfig
from rung.data.record import Reason
from tests.unit.data_prep.reading import good, read_all


@pytest.fixture
def outcomes(write):
    def read(content, **settings):
        path = str(write(content, settings.pop("name", "raw.json")))
        return read_all(
            open_documents(SourceConfig.model_validate({"kind": "mp_api", "path": path} | settings), "test")
        )

    return read


@pytest.fixture
def parsed(outcomes):
    def read(*args, **settings):
        return good(outcomes(*args, **settings))

    return read


def layouts(first, second):
    return {
        "list": [first, second],
        "indented": json.dumps([first, second], indent=2),
        "data": {"data": [first, second], "meta": {"api_version": "1", "time": {"structure": 3}}},
        "meta first": {"meta": {"n": [1, {}]}, "data": [first, second]},
        "by key": {"a": first, "b": second},
        "lines": json.dumps(first) + "\n" + json.dumps(second) + "\n",
    }


@pytest.mark.parametrize("layout", list(layouts({}, {})))
def test_every_layout(parsed, task, entry, layout):
    found = parsed(layouts(task(), task(task_id="mp-150"))[layout])
    assert [frame.record.frame_id for frame in found] == ["mp-149-0-0", "mp-149-0-1", "mp-150-0-0", "mp-150-0-1"]
    found = parsed(layouts(entry(), entry(data={"task_id": "mp-8"}))[layout])
    assert [frame.record.frame_id for frame in found] == ["mp-7", "mp-8"]


def test_one_document(parsed, task):
    assert len(parsed(task())) == 2


def test_labels_in_rungs_units(parsed, task):
    first, last = parsed(task())
    assert (first.record.energy, last.record.energy, last.energy_key) == (-8.0, -8.5, "e_fr_energy")
    np.testing.assert_allclose(np.diag(first.record.stress), [-1.0, -2.0, -3.0], rtol=1e-6)
    np.testing.assert_allclose(first.record.forces, [[0.1, 0, 0], [-0.1, 0, 0]], rtol=1e-6)
    assert first.record.magmoms is None
    assert last.record.magmoms.tolist() == [1.5, 0.5]
    assert (first.converged, first.task_type, first.hubbard_u) == (True, "structure optimization", False)


@pytest.mark.parametrize(
    ("energy", "value"),
    [(None, -8.0), ("uncorrected", -8.0), ("free", -8.0), ("zero_smearing", -7.99), ("without_entropy", -7.98)],
)
def test_choice_of_energy(parsed, task, energy, value):
    assert parsed(task(), energy=energy)[0].record.energy == pytest.approx(value)


def test_moments_of_the_sites_where_outcar_says_none(parsed, task, structure):
    document, crystal = task(), structure()
    for site, moment in zip(crystal["sites"], (2.0, -1.0), strict=True):
        site["properties"] = {"magmom": moment}
    output = document["calcs_reversed"][0]["output"]
    output |= {"outcar": None, "structure": crystal}
    assert parsed(document)[-1].record.magmoms.tolist() == [2.0, 1.0]
    crystal["sites"][0]["properties"] = None
    assert parsed(document)[-1].record.magmoms is None


def test_several_calculations(parsed, task):
    document = task()
    document["calcs_reversed"] *= 2
    assert [frame.record.frame_id for frame in parsed(document)] == [
        f"mp-149-{calculation}-{step}" for calculation in (0, 1) for step in (0, 1)
    ]


def test_material(parsed, task, tmp_path):
    assert parsed(task())[0].record.material_id == "mp-149"
    assert parsed(task(material_id="mp-ba"))[0].record.material_id == "mp-26"
    path = tmp_path / "materials.json"
    path.write_text('{"mp-149": "mp-5"}')
    assert parsed(task(material_id="mp-ba"), materials=str(path))[0].record.material_id == "mp-5"


@pytest.mark.parametrize(
    ("replaced", "functional", "hubbard_u"),
    [
        ({}, "GGA", False),
        ({"run_type": "GGA+U"}, "GGA", False),  # the table of U says that none is applied
        ({"run_type": "R2SCAN"}, "r2SCAN", False),
        ({"run_type": {"value": "PBESol", "@class": "RunType"}}, "PBEsol", False),
        ({"input": {"hubbards": {"Fe": 5.3, "O": 0.0}}}, "GGA+U", True),
        ({"input": {"hubbards": {"O": 0.0}, "is_hubbard": True}}, "GGA", False),
        ({"input": {"is_hubbard": True}}, "GGA+U", True),
        ({"run_type": None, "input": {"incar": {"METAGGA": "R2SCA"}}}, "r2SCAN", None),
    ],
)
def test_functional_and_u(parsed, task, replaced, functional, hubbard_u):
    frame = parsed(task(**replaced))[0]
    assert (frame.record.functional, frame.hubbard_u) == (functional, hubbard_u)


def test_u_is_not_taken_from_repeated_potcar_blocks(parsed, task):
    """Trap 5: LDAUU follows the blocks of POTCAR, which may be listed twice."""
    document = task(input={"hubbards": {"Na": 0.0, "Cl": 0.0}, "incar": {"LDAU": True, "LDAUU": [0, 0, 3.9]}})
    assert parsed(document)[0].record.functional == "GGA"


@pytest.mark.parametrize("kind", [None, {"value": "NSCF Line"}, "NSCF Line", {"@class": "TaskType"}, 7])
def test_task_type_in_any_form(parsed, task, kind):
    found = parsed(task(task_type=kind))[0].task_type
    assert found == ("nscf line" if "NSCF" in str(kind) else "structure optimization")


def test_convergence(parsed, task):
    document = task()
    step = document["calcs_reversed"][0]["output"]["ionic_steps"][0]
    step["electronic_steps"] = [{}] * 60
    assert [frame.converged for frame in parsed(document)] == [False, True]


def test_energies_that_old_versions_misplace(outcomes, task):
    document = task()
    for step in document["calcs_reversed"][0]["output"]["ionic_steps"]:
        step |= {"e_0_energy": -0.01, "e_wo_entrp": -7.9}
    assert [frame.record.energy for frame in outcomes(document)] == [-8.0, -8.5]
    assert {frame.reason for frame in outcomes(document, energy="without_entropy")} == {Reason.MALFORMED}


def test_entries(parsed, entry):
    assert (parsed(entry())[0].record.energy, parsed(entry())[0].record.material_id) == (-8.0, "mp-6")
    assert parsed(entry(), energy="corrected")[0].record.energy == pytest.approx(-8.7)
    plus_u = parsed(entry(parameters={"run_type": "GGA", "hubbards": {"Fe": 5.3}}))[0]
    assert (plus_u.record.functional, plus_u.hubbard_u) == ("GGA+U", True)
    assert plus_u.record.forces is None


def test_table_by_columns(parsed, structure):
    table = {"structure": [structure(), structure()], "energy_per_atom": [-4.0, -5.0], "material_id": ["mp-1", "mp-2"]}
    found = parsed(table, functional="PBE")
    assert [(frame.record.material_id, frame.record.energy) for frame in found] == [("mp-1", -8.0), ("mp-2", -10.0)]


@pytest.mark.parametrize(
    ("spoil", "reason", "detail"),
    [
        (lambda d: d.pop("task_id"), Reason.MISSING_KEY, "task_id"),
        (lambda d: d.update(run_type=None, input=None), Reason.MISSING_KEY, "run_type is missing"),
        (lambda d: d.update(calcs_reversed=[]), Reason.MISSING_KEY, "no ionic steps"),
        (lambda d: d.update(calcs_reversed="x"), Reason.MISSING_KEY, "no ionic steps"),
        (lambda d: d["calcs_reversed"][0].update(output=None), Reason.MISSING_KEY, "no ionic steps"),
        (lambda d: step_of(d).pop("structure"), Reason.MISSING_KEY, "structure is missing"),
        (lambda d: step_of(d).pop("e_fr_energy"), Reason.MISSING_KEY, "e_fr_energy is missing"),
        (lambda d: step_of(d).update(e_fr_energy="low"), Reason.MALFORMED, "e_fr_energy"),
        (lambda d: step_of(d).update(e_fr_energy=float("nan")), Reason.NOT_FINITE, "energy"),
        (lambda d: step_of(d).update(forces=[[0, 0, 0]]), Reason.WRONG_SHAPE, "forces"),
    ],
)
def test_documents_that_cannot_be_used(outcomes, task, spoil, reason, detail):
    document = task()
    spoil(document)
    refused = outcomes(document)[0]
    assert isinstance(refused, Rejection)
    assert refused.reason == reason
    assert detail in refused.detail


def step_of(document):
    return document["calcs_reversed"][0]["output"]["ionic_steps"][0]


def test_an_entry_has_no_free_energy(outcomes, entry):
    (refused,) = outcomes(entry(), energy="free")
    assert "set source.energy to uncorrected" in refused.detail
    (refused,) = outcomes(entry(correction=None), energy="corrected")
    assert refused.reason == Reason.MISSING_KEY


def test_what_stands_in_place_of_a_document(outcomes, task):
    found = outcomes([task(), 5, None, "text", [1], {}])
    assert [isinstance(frame, ParsedFrame) for frame in found] == [True, True] + [False] * 5
