"""MatPES: every layout gives the same records; ids, units and functionals are brought to Rung's."""

import json

import numpy as np
import pytest

from data_prep.sources.base import Rejection
from data_prep.sources.matpes import open_matpes
from rung.config.preparation import SourceConfig
from rung.data.record import Reason
from tests.unit.data_prep.reading import good, read_all


@pytest.fixture
def outcomes(write):
    def read(content, name="raw.json", *, compress=False, functional=None):
        path = str(write(content, name, compress=compress))
        return read_all(open_matpes(SourceConfig(kind="matpes", path=path, functional=functional), "test"))

    return read


@pytest.fixture
def records(outcomes):
    def read(*args, **kwargs):
        return [frame.record for frame in good(outcomes(*args, **kwargs))]

    return read


def layouts(first, second):
    return {
        "list": [first, second],
        "indented list": json.dumps([first, second], indent=2),
        "samples": {"samples": [first, second]},
        "samples with description": {"info": {"by": {"name": "x"}, "n": 2}, "version": 1, "samples": [first, second]},
        "lines": "\n".join(json.dumps(record) for record in (first, second)),
        "lines with blank lines": json.dumps(first) + "\n\n" + json.dumps(second) + "\n\n",
        "by key": {"Na": first, "K": second},
        "indented by key": json.dumps({"Na": first, "K": second}, indent=1),
    }


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("layout", list(layouts({}, {})))
def test_every_layout(records, matpes_record, layout, compress):
    first = matpes_record(builder_meta={"note": 'the "structure" of {it', "path": "a\\"})
    second = matpes_record(matpes_id="matpes-2", energy=-9.0)
    read = records(layouts(first, second)[layout], compress=compress)
    assert [(x.frame_id, x.energy) for x in read] == [("matpes-20240214_1_2", -8.0), ("matpes-2", -9.0)]


def test_all_labels_in_rungs_units(records, matpes_record):
    (read,) = records([matpes_record()])
    np.testing.assert_allclose(read.stress, [[-1.0, -0.6, -0.5], [-0.6, -2.0, -0.4], [-0.5, -0.4, -3.0]], rtol=1e-6)
    np.testing.assert_allclose(read.forces, [[0.1, 0, 0], [-0.1, 0, 0]], rtol=1e-6)
    assert read.magmoms.tolist() == [1.5, 0.5]
    assert read.energy == -8.0
    assert read.material_id == "mp-22862"
    assert read.functional == "GGA"


def test_single_record(records, matpes_record):
    assert len(records(matpes_record())) == 1


@pytest.mark.parametrize(
    ("provenance", "own", "expected"),
    [
        ({"original_mp_id": "mp-5"}, "matpes-7", ("mp-5", "matpes-7")),
        ({"original_mp_id": None}, "matpes-7", ("matpes-7", "matpes-7")),
        (None, "matpes-7-PBE", ("matpes-7", "matpes-7")),
        (None, "matpes-7_r2SCAN", ("matpes-7", "matpes-7")),
        ({"original_mp_id": "mp-ft"}, None, ("mp-149", "mp-149")),
    ],
)
def test_ids_are_the_same_for_both_functionals(records, matpes_record, provenance, own, expected):
    (read,) = records([matpes_record(provenance=provenance, matpes_id=own)])
    assert (read.material_id, read.frame_id) == expected


def test_moments_unless_every_site_has_one(records, matpes_record):
    partly, without, null = matpes_record(), matpes_record(), matpes_record()
    partly["structure"]["sites"][1]["properties"] = {"magmom": None}
    del without["structure"]["sites"][0]["properties"]
    null["structure"]["sites"][0]["properties"] = None
    assert [read.magmoms for read in records([partly, without, null])] == [None] * 3


def test_functional_the_file_wins_and_absence_is_refused(outcomes, matpes_record):
    stated, silent = matpes_record(functional="R2SCAN"), matpes_record(functional=None)
    read, rejected = outcomes([stated, silent])
    assert read.record.functional == "r2SCAN"
    assert rejected.reason == Reason.MISSING_KEY
    assert "source.functional" in rejected.detail
    read, filled = outcomes([stated, silent], functional="pbe")
    assert (read.record.functional, filled.record.functional) == ("r2SCAN", "GGA")


def test_rejections_name_the_record(outcomes, matpes_record):
    bad = matpes_record(forces=[[0.0, 0.0, 0.0]])
    nameless = matpes_record(matpes_id=None, provenance=None)
    first, second, third = outcomes([bad, nameless, 5])
    assert (first.material_id, first.frame_id, first.reason) == ("mp-22862", "matpes-20240214_1_2", Reason.WRONG_SHAPE)
    assert (second.material_id, second.frame_id, second.reason) == ("", "1", Reason.MISSING_KEY)
    assert isinstance(third, Rejection)
    assert third.reason == Reason.MALFORMED


def test_labels_may_be_absent(records, matpes_record):
    (read,) = records([matpes_record(stress=None, forces=None)])
    assert read.stress is None
    assert read.forces is None
