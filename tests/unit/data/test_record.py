"""What a record accepts, what it refuses, and why."""

import pickle

import numpy as np
import pytest

from rung.data.fields import FIELD, Labels
from rung.data.record import Reason, RecordError, StructureRecord, wrap

GOOD = {
    "atomic_numbers": np.array([11, 17]),
    "lattice": np.eye(3) * 4,
    "frac_coords": np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]),
    "energy": -7.0,
    "forces": np.ones((2, 3)),
    "stress": np.eye(3),
    "magmoms": np.array([-0.5, 2.0]),
    "source": "test",
    "material_id": "mp-1",
    "frame_id": "0",
    "functional": "GGA",
}


def make(**changes):
    return StructureRecord(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"atomic_numbers": np.array([], dtype=int)}, Reason.WRONG_SHAPE, "one number per atom"),
        ({"atomic_numbers": np.array([[11, 17]])}, Reason.WRONG_SHAPE, "(1, 2)"),
        ({"atomic_numbers": np.array([11.5, 17.0])}, Reason.MALFORMED, "whole numbers"),
        ({"atomic_numbers": np.array([11, 95])}, Reason.UNKNOWN_ELEMENT, "95"),
        ({"atomic_numbers": np.array([0, 17])}, Reason.UNKNOWN_ELEMENT, "0"),
        ({"atomic_numbers": np.array([-245, 17])}, Reason.UNKNOWN_ELEMENT, "-245"),
        ({"lattice": np.eye(2)}, Reason.WRONG_SHAPE, "lattice"),
        ({"lattice": np.zeros((3, 3))}, Reason.MALFORMED, "no volume"),
        ({"lattice": np.array([[4, 0, 0], [4, 4, 0], [8, 4, 1e-12]])}, Reason.MALFORMED, "no volume"),
        ({"lattice": np.diag([4, 4, np.nan])}, Reason.NOT_FINITE, "lattice"),
        ({"frac_coords": np.zeros((3, 3))}, Reason.WRONG_SHAPE, "2 atoms need (2, 3)"),
        ({"frac_coords": np.full((2, 3), np.inf)}, Reason.NOT_FINITE, "frac_coords"),
        ({"energy": float("nan")}, Reason.NOT_FINITE, "energy"),
        ({"energy": [1.0, 2.0]}, Reason.WRONG_SHAPE, "energy"),
        ({"forces": np.zeros((1, 3))}, Reason.WRONG_SHAPE, "forces"),
        ({"forces": np.full((2, 3), 1e39)}, Reason.NOT_FINITE, "float32"),
        ({"forces": [[0, 0, None], [0, 0, 0]]}, Reason.NOT_FINITE, "forces"),
        ({"forces": [["a", 0, 0], [0, 0, 0]]}, Reason.MALFORMED, "forces"),
        ({"forces": [[0, 0], [0, 0, 0]]}, Reason.MALFORMED, "forces"),
        ({"stress": np.zeros(6)}, Reason.WRONG_SHAPE, "stress"),
        ({"magmoms": np.zeros(3)}, Reason.WRONG_SHAPE, "magmoms"),
        ({"material_id": ""}, Reason.MALFORMED, "material_id"),
        ({"frame_id": 3}, Reason.MALFORMED, "frame_id"),
        ({"functional": "G\0A"}, Reason.MALFORMED, "NUL"),
        ({"source": "x" * 500}, Reason.MALFORMED, "500 bytes"),
    ],
)
def test_refuses(changes, reason, words):
    with pytest.raises(RecordError) as caught:
        make(**changes)
    assert caught.value.reason is reason
    assert words in caught.value.detail


def test_brings_values_to_the_stored_types():
    record = make(energy=np.float32(2.5), forces=[[0, 0, 1], [1, 0, 0]])
    assert isinstance(record.energy, float)
    for name in ("atomic_numbers", "lattice", "frac_coords", "forces", "stress", "magmoms"):
        assert getattr(record, name).dtype == FIELD[name].dtype
        assert getattr(record, name).shape == FIELD[name].full_shape(2, 0)


def test_arrays_are_by_row_whatever_was_given():
    record = make(lattice=np.asfortranarray(np.arange(9.0).reshape(3, 3) + np.eye(3)), forces=np.ones((3, 2)).T)
    assert all(getattr(record, name).flags.c_contiguous for name in ("lattice", "frac_coords", "forces", "stress"))


def test_drops_the_sign_of_moments_and_leaves_the_input_alone():
    given = GOOD["magmoms"].copy()
    assert make(magmoms=given).magmoms.tolist() == [0.5, 2.0]
    assert given.tolist() == [-0.5, 2.0]


@pytest.mark.parametrize("absent", ["energy", "forces", "stress", "magmoms"])
def test_labels_say_what_is_there(absent):
    assert make().labels == Labels.ENERGY | Labels.FORCES | Labels.STRESS | Labels.MAGMOMS
    assert make(**{absent: None}).labels == make().labels & ~Labels[absent.upper()]


def test_accepts_a_left_handed_cell():
    assert make(lattice=np.diag([4.0, 4.0, -4.0])).num_atoms == 2


def test_wrap_stays_below_one():
    coordinates = np.array([[-1e-17, 1.0, 0.25], [-0.25, 7.5, -3.0], [np.nextafter(1, 0), 0, -0.0]])
    wrapped = wrap(coordinates)
    assert ((wrapped >= 0) & (wrapped < 1)).all()
    shift = coordinates - wrapped
    assert np.allclose(shift, np.round(shift), atol=1e-15)
    assert np.array_equal(wrap(wrapped), wrapped)


def test_errors_come_back_from_another_process_whole():
    error = pickle.loads(pickle.dumps(RecordError(Reason.NO_LABEL, "nothing to learn from")))
    assert (error.reason, error.detail) == (Reason.NO_LABEL, "nothing to learn from")
    assert str(error) == "no_label: nothing to learn from"
