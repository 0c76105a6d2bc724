"""Columns of an index file that was damaged."""

import numpy as np
import pytest

from rung.data.codec import ShardError
from rung.data.index import read_columns, write_columns

COLUMNS = {"split": np.array([0, 2, 1], np.uint8), "num_atoms": np.array([4, 1, 7], np.int32)}


@pytest.fixture
def path(tmp_path):
    write_columns(tmp_path / "shard.npz", COLUMNS)
    return tmp_path / "shard.npz"


def test_a_changed_byte_is_noticed_or_changes_nothing(path):
    content, noticed = path.read_bytes(), 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = read_columns(path, list(COLUMNS))
        except ShardError:
            noticed += 1
        else:
            assert all(np.array_equal(found[name], values) for name, values in COLUMNS.items())
    assert noticed > len(content) / 2


def test_a_cut_file_is_noticed(path):
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ShardError, match=r"shard\.npz cannot be read .*: prepare the data set again"):
            read_columns(path, list(COLUMNS))


def test_a_column_that_is_not_there_is_noticed(path):
    with pytest.raises(ShardError, match="num_angles"):
        read_columns(path, ["num_angles"])
