"""Reading shards: their index, and their records from any process."""

import os
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from rung.data.codec import ShardError, decode
from rung.data.record import GraphRecord
from rung.data.shard import index_path, record_key


def read_columns(folder: Path, name: str, columns: Sequence[str]) -> dict[str, NDArray]:
    """Read columns of a shard's index.

    Raises:
        ShardError: if the index is missing or damaged.
    """
    path = index_path(folder, name)
    try:
        with np.load(path, allow_pickle=False) as index:
            return {column: index[column] for column in columns}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ShardError(f"the index {path} cannot be read ({error}): prepare the data set again") from error


@dataclass(frozen=True)
class ShardReader:
    """Reads records of one shard.

    It holds a path only: it can be pickled, and be used before and after a fork.

    Attributes:
        path: the LMDB file.
        first_id: id in the data set of the shard's first record.
    """

    path: Path
    first_id: int

    def read(self, positions: Sequence[int]) -> list[GraphRecord]:
        """Read several records, given by their positions in the shard, in one transaction.

        Raises:
            ShardError: if one is missing or damaged; the message names it.
        """
        try:
            with _environment(self.path).begin() as transaction:
                payloads = [transaction.get(record_key(position)) for position in positions]
        except (OSError, lmdb.Error) as error:
            raise ShardError(f"{self.path} cannot be read ({error}): prepare the data set again") from error
        return [self._decode(payload, position) for payload, position in zip(payloads, positions, strict=True)]

    def _decode(self, payload: bytes | None, position: int) -> GraphRecord:
        if payload is None:
            raise ShardError(f"{self.path} has no record {position}: prepare the data set again")
        try:
            return decode(payload, self.first_id + position)
        except ShardError as error:
            raise ShardError(f"record {position} of {self.path}: {error}") from error


@dataclass(frozen=True)
class _Opened:
    env: lmdb.Environment
    file: tuple[int, int, int]  # device, inode, time of modification


# LMDB opens a file once per process at most, so all readers of a process share its environment.
_opened: dict[str, _Opened] = {}
_lock = threading.Lock()


def _environment(path: Path) -> lmdb.Environment:
    """Open a shard for reading, or return it where it is open; a file that was replaced is opened anew."""
    name = os.path.realpath(path)
    status = Path(name).stat()
    file = (status.st_dev, status.st_ino, status.st_mtime_ns)
    with _lock:
        opened = _opened.get(name)
        if opened is not None and opened.file == file:
            return opened.env
        if opened is not None:
            opened.env.close()
        env = lmdb.open(name, subdir=False, readonly=True, lock=False, readahead=False, create=False)
        _opened[name] = _Opened(env, file)
        return env


def _forget_inherited() -> None:
    """Start a forked process with nothing open: LMDB's environments are the parent's and must not be used here."""
    global _lock  # noqa: PLW0603 - another thread may have held it at the fork
    _lock = threading.Lock()
    for opened in _opened.values():
        opened.env.close()
    _opened.clear()


os.register_at_fork(after_in_child=_forget_inherited)
