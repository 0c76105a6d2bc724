"""MPtrj's layout: keys to labels, units, absent labels, and what refuses a frame."""

import numpy as np
import pytest

from data_prep.sources.base import ParsedFrame, Rejection
from data_prep.sources.mptrj import open_mptrj
from rung.config.preparation import SourceConfig
from rung.data.record import Reason, StructureRecord
from tests.unit.data_prep.reading import read_all


@pytest.fixture
def outcomes(write):
    def read(content, *, compress=False, functional=None, energy="corrected"):
        path = str(write(content, compress=compress))
        return read_all(open_mptrj(SourceConfig(kind="mptrj", path=path, functional=functional, energy=energy), "test"))

    return read


@pytest.fixture
def outcome(outcomes, mptrj_frame):
    def read(**replaced) -> ParsedFrame | Rejection:
        (only,) = outcomes({"mp-1": {"mp-1-0-0": mptrj_frame(**replaced)}})
        return only

    return read


@pytest.fixture
def record(outcome):
    def read(**replaced) -> StructureRecord:
        frame = outcome(**replaced)
        assert isinstance(frame, ParsedFrame), frame
        return frame.record

    return read


def test_all_labels_in_rungs_units(record):
    read = record()
    assert read.atomic_numbers.tolist() == [11, 17]
    assert read.energy == pytest.approx(-8.0)
    np.testing.assert_allclose(read.forces, [[0.1, 0, 0], [-0.1, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(read.stress, [[-1.0, -0.1, -0.2], [-0.1, -2.0, -0.3], [-0.2, -0.3, -3.0]], rtol=1e-6)
    assert read.magmoms.tolist() == [1.5, 0.5]
    assert (read.source, read.material_id, read.frame_id, read.functional) == ("test", "mp-1", "mp-1-0-0", "GGA")


@pytest.mark.parametrize("compress", [False, True])
def test_frames_come_in_the_order_of_the_file(outcomes, mptrj_frame, compress):
    content = {"mp-2": {"b": mptrj_frame(), "a": mptrj_frame()}, "mp-1": {"c": mptrj_frame()}}
    names = [(frame.record.material_id, frame.record.frame_id) for frame in outcomes(content, compress=compress)]
    assert names == [("mp-2", "b"), ("mp-2", "a"), ("mp-1", "c")]


def test_choice_of_energy(outcomes, mptrj_frame):
    def energy(choice, **replaced):
        frame = mptrj_frame(**replaced)
        for key in [key for key, value in frame.items() if value == "absent"]:
            del frame[key]
        (only,) = outcomes({"mp-1": {"f": frame}}, energy=choice)
        return only.record.energy, only.energy_key

    assert energy("corrected", energy_per_atom=-4.5) == (-9.0, "energy_per_atom")
    assert energy("uncorrected") == (-6.0, "uncorrected_total_energy")
    assert energy("corrected", energy_per_atom="absent") == (-8.0, "corrected_total_energy")
    # MP-r2SCAN has no corrected energies.
    absent = {"energy_per_atom": "absent", "corrected_total_energy": "absent"}
    assert energy("corrected", **absent) == (-6.0, "uncorrected_total_energy")
    assert energy("uncorrected", uncorrected_total_energy=None) == (None, None)


def test_absent_labels_stay_absent(outcome, record):
    read = record(magmom=None, stress=None, force=None)
    assert read.magmoms is None
    assert read.stress is None
    assert read.forces is None
    bare = outcome(**dict.fromkeys(("uncorrected_total_energy", "corrected_total_energy", "energy_per_atom")))
    assert bare.record.energy is None
    assert bare.energy_key is None


def test_functional_of_the_config(outcomes, mptrj_frame):
    (only,) = outcomes({"mp-1": {"f": mptrj_frame()}}, functional="R2SCAN")
    assert only.record.functional == "r2SCAN"


def test_cartesian_coordinates_alone_are_enough(record, structure):
    crystal = structure(edge=4.0)
    for site in crystal["sites"]:
        site["xyz"] = [4.0 * x for x in site.pop("abc")]
    np.testing.assert_allclose(record(structure=crystal).frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-12)


def spoilt(structure, path, value):
    crystal = structure()
    *parents, last = path
    target = crystal
    for key in parents:
        target = target[key]
    target[last] = value
    return crystal


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (["lattice"], None, Reason.MISSING_KEY),
        (["sites"], None, Reason.MISSING_KEY),
        (["sites"], [], Reason.MALFORMED),
        (["sites"], [1, 2], Reason.MALFORMED),
        (["sites", 0, "species"], None, Reason.MISSING_KEY),
        (["sites", 0, "species"], [{"element": "Na", "occu": 0.5}], Reason.DISORDERED),
        (["sites", 0, "species"], [{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}], Reason.DISORDERED),
        (["sites", 0, "species"], [{"element": "Na", "occu": "1"}], Reason.MALFORMED),
        (["sites", 0, "species"], ["Na"], Reason.MALFORMED),
        (["sites", 0, "species"], [{"occu": 1}], Reason.MISSING_KEY),
        (["sites", 0, "species", 0, "element"], "Cm", Reason.UNKNOWN_ELEMENT),
        (["sites", 0, "species", 0, "element"], "Xx", Reason.UNKNOWN_ELEMENT),
        (["sites", 0, "abc"], [0.1, 0.2], Reason.MALFORMED),
        (["sites", 0, "abc"], None, Reason.MALFORMED),
        (["sites", 0, "abc"], [0.1, "x", 0.2], Reason.MALFORMED),
        (["lattice", "matrix"], [[4, 0, 0], [0, 4, 0]], Reason.WRONG_SHAPE),
        (["lattice", "matrix"], [[4, 0, 0], [0, 4, 0], [4, 4, 0]], Reason.MALFORMED),
        (["lattice", "pbc"], [True, True, False], Reason.MALFORMED),
    ],
)
def test_structures_that_cannot_be_used(outcome, structure, path, value, reason):
    rejected = outcome(structure=spoilt(structure, path, value))
    assert isinstance(rejected, Rejection)
    assert rejected.reason == reason
    assert (rejected.source, rejected.material_id, rejected.frame_id) == ("test", "mp-1", "mp-1-0-0")
    assert rejected.detail


@pytest.mark.parametrize(
    ("replaced", "reason", "detail"),
    [
        ({"structure": None}, Reason.MISSING_KEY, "structure"),
        ({"structure": "text"}, Reason.MALFORMED, "structure"),
        ({"force": [[0.0, 0.0, 0.0]]}, Reason.WRONG_SHAPE, "forces"),
        ({"force": [[0.0, 0.0], [0.0, 0.0, 0.0]]}, Reason.MALFORMED, "forces"),
        ({"force": [[float("nan"), 0, 0], [0, 0, 0]]}, Reason.NOT_FINITE, "forces"),
        ({"force": [[float("inf"), 0, 0], [0, 0, 0]]}, Reason.NOT_FINITE, "forces"),
        ({"stress": [1.0, 2.0]}, Reason.WRONG_SHAPE, "stress"),
        ({"stress": [[1, 2, 3], [4, 5]]}, Reason.MALFORMED, "stress"),
        ({"magmom": [1.0, 2.0, 3.0]}, Reason.WRONG_SHAPE, "magmoms"),
        ({"magmom": [1.0, None]}, Reason.NOT_FINITE, "magmoms"),
        ({"energy_per_atom": "low"}, Reason.MALFORMED, "energy_per_atom"),
        ({"energy_per_atom": float("nan")}, Reason.NOT_FINITE, "energy"),
    ],
)
def test_labels_that_cannot_be_used(outcome, replaced, reason, detail):
    rejected = outcome(**replaced)
    assert isinstance(rejected, Rejection)
    assert rejected.reason == reason
    assert detail in rejected.detail


def test_what_stands_in_place_of_a_frame(outcomes, mptrj_frame):
    content = {"mp-1": None, "mp-2": {"f": 3, "g": [1], "h": mptrj_frame()}, "mp-3": {}}
    null, number, array, good = outcomes(content)
    assert [x.reason for x in (null, number, array)] == [Reason.MALFORMED] * 3
    assert null.material_id == "mp-1"
    assert (number.material_id, number.frame_id) == ("mp-2", "f")
    assert isinstance(good, ParsedFrame)


def test_a_frame_that_is_not_json_spoils_itself_alone(outcomes, mptrj_frame):
    import json

    text = json.dumps({"mp-1": {"a": mptrj_frame(), "b": mptrj_frame()}}).replace('"bandgap": 5.0', '"bandgap": 5,0', 1)
    bad, good = outcomes(text)
    assert bad.reason == Reason.MALFORMED
    assert "not JSON" in bad.detail
    assert isinstance(good, ParsedFrame)
