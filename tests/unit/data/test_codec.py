"""The record codec: what comes back, and what is refused."""

import pickle
import zlib
from dataclasses import fields

import numpy as np
import pytest

from rung.data.codec import FORMAT_VERSION, ShardError, decode, encode
from rung.data.fields import FIELDS, Labels
from rung.data.graph import graph_record
from tests.unit.data.samples import ALL_LABELS, CUTOFFS, awkward_cells, random_record, record_of


def assert_equal(record, other):
    for field in fields(record):
        expected, found = getattr(record, field.name), getattr(other, field.name)
        if isinstance(expected, np.ndarray):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
        else:
            assert found == expected, field.name


@pytest.mark.parametrize("labels", [Labels(flags) for flags in range(16)])
def test_round_trip(labels):
    record = graph_record(random_record(5, labels), CUTOFFS, record_id=31)
    decoded = decode(encode(record), 31)
    assert_equal(record, decoded)
    assert decoded.labels == labels


@pytest.mark.parametrize("name", awkward_cells())
def test_round_trip_of_awkward_cells(name):
    record = graph_record(record_of(awkward_cells()[name]), CUTOFFS)
    assert_equal(record, decode(encode(record)))


def test_equal_records_have_equal_bytes():
    assert encode(graph_record(random_record(6), CUTOFFS)) == encode(graph_record(random_record(6), CUTOFFS))


def test_arrays_are_aligned_and_read_only():
    payload = encode(graph_record(random_record(7), CUTOFFS))
    record = decode(payload)
    for field in FIELDS:
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            assert value.flags.aligned, field.name
            assert not value.flags.writeable, field.name


def test_wide_types_come_first():
    sizes = [field.dtype.itemsize for field in FIELDS]
    assert sizes == sorted(sizes, reverse=True)
    assert all(field.dtype.byteorder in "<|=" for field in FIELDS)


def test_format_does_not_move():
    """The bytes of format 2: a change here needs a new format version."""
    record = graph_record(record_of(awkward_cells()["one short bond"], energy=-1.5), CUTOFFS)
    payload = encode(record)
    assert payload[:20].hex() == "02000100" + "02000000" + "01000000" + "01000000" + "00000000"
    assert zlib.decompress(payload[24:]) == b"".join(
        [
            np.diag([9.0, 9.0, 9.0]).astype("<f8").tobytes(),
            np.float64(-1.5).tobytes(),
            np.array([0, 0, 0, 0.1, 0, 0], dtype="<f8").tobytes(),
            np.array([0, 1], dtype="<u2").tobytes(),
            bytes(3),
            bytes([1, 1]),
        ]
    )


def test_bonds_are_stored_column_by_column():
    record = graph_record(random_record(11, Labels.NONE), CUTOFFS)
    arrays = zlib.decompress(encode(record)[24:])
    assert record.num_bonds > 10
    assert np.ascontiguousarray(record.bond_atoms.T).tobytes() in arrays
    assert np.ascontiguousarray(record.bond_image.T).tobytes() in arrays


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:10],
        lambda b: b[:-1],
        lambda b: b + b"x",
        lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:],
        lambda b: b[:12] + bytes([b[12] ^ 1]) + b[13:],
    ],
)
def test_refuses_damaged_bytes(damage):
    payload = encode(graph_record(random_record(8, ALL_LABELS), CUTOFFS))
    with pytest.raises(ShardError, match=r"damaged|no record"):
        decode(damage(payload))


def test_refuses_another_format():
    payload = encode(graph_record(random_record(9), CUTOFFS))
    newer = (FORMAT_VERSION + 1).to_bytes(2, "little") + payload[2:]
    with pytest.raises(ShardError, match="format 2"):
        decode(newer)


def test_holds_no_pickle():
    payload = encode(graph_record(random_record(10), CUTOFFS))
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(payload)
