"""A shard: some thousand records in one LMDB file, written whole or not at all, and read from any process."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import lmdb

from rung.config.preparation import GraphConfig
from rung.data.codec import DamagedShardError, ShardError, decode, encode
from rung.data.graph import graph_record
from rung.data.index import IndexRow, index_path, write_index
from rung.data.record import GraphRecord, StructureRecord

_FIRST_MAP_SIZE: Final = 64 << 20  # bytes; doubled whenever it is full
_BYTES_PER_COMMIT: Final = 8 << 20


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A record ready to be stored: its bytes, and its row of the index."""

    payload: bytes
    row: IndexRow

    @classmethod
    def of(cls, record: StructureRecord, cutoffs: GraphConfig) -> Self:
        """Build the graph of a record and encode both; this is the work that can be spread over processes.

        Raises:
            RecordError: if the structure has no usable graph.
        """
        graph = graph_record(record, cutoffs)
        return cls(payload=encode(graph), row=IndexRow.of(record, graph))


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """A finished shard, as the manifest lists it. The hashes are SHA-256, hexadecimal.

    Attributes:
        name: of its files, without their endings.
        num_records: stored records.
        lmdb_sha256: of the records.
        index_sha256: of the index.
        facts_sha256: of what preparation remembers of each record.
        first_frame: number in the source of the first raw frame that it was made from.
        num_frames: raw frames that it was made from; more than records where some could not be read.
    """

    name: str
    num_records: int
    lmdb_sha256: str
    index_sha256: str
    facts_sha256: str = ""
    first_frame: int = 0
    num_frames: int = 0


def data_path(folder: Path, name: str) -> Path:
    """LMDB file of a shard."""
    return folder / f"{name}.lmdb"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardWriter:
    """Writes one shard. Both files appear whole, the index last, when `finish` is called, or not at all.

    Use as a context manager: leaving it without `finish`, by an exception for instance, removes what was written.

    Attributes:
        num_bytes: of the records given so far.

    Raises:
        OSError: if nothing can be written there.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._partial = folder / f".{name}.lmdb.partial"
        self._partial_index = folder / f".{name}.index.npz.partial"
        self._rows: list[IndexRow] = []
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._num_stored = 0
        self.num_bytes = 0
        self._env: lmdb.Environment | None = None
        with self._all_or_nothing():
            self._remove_partial()
            self._env = lmdb.open(str(self._partial), subdir=False, map_size=_FIRST_MAP_SIZE, lock=False, sync=False)

    def __len__(self) -> int:
        return len(self._rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def add(self, entry: ShardEntry) -> None:
        """Store a record.

        Raises:
            OSError: if the shard cannot be written; nothing of it is left then.
        """
        self._rows.append(entry.row)
        self.num_bytes += len(entry.payload)
        self._waiting.append(entry.payload)
        self._waiting_bytes += len(entry.payload)
        if self._waiting_bytes >= _BYTES_PER_COMMIT:
            with self._all_or_nothing():
                self._commit(self._open_env())

    def finish(self) -> ShardInfo:
        """Bring the shard to disk and give it its name. Its records have no split yet, see `write_splits`.

        Raises:
            OSError: if it cannot be written, on a full disk for instance; nothing of it is left then.
            ValueError: if it has no record, or is closed.
        """
        if not self._rows:
            raise ValueError(f"shard {self._name} in {self._folder} would be empty: add a record first")
        with self._all_or_nothing():
            env = self._open_env()
            self._commit(env)
            env.sync(True)
            env.close()
            self._env = None
            write_index(self._partial_index, self._rows)
            info = ShardInfo(
                name=self._name,
                num_records=len(self),
                lmdb_sha256=file_sha256(self._partial),
                index_sha256=file_sha256(self._partial_index),
            )
            # A shard of that name from an earlier run stops being whole before it is replaced.
            index_path(self._folder, self._name).unlink(missing_ok=True)
            self._partial.replace(data_path(self._folder, self._name))
            self._partial_index.replace(index_path(self._folder, self._name))
            sync_folder(self._folder)
        return info

    def discard(self) -> None:
        """Close the shard and remove whatever is unfinished of it."""
        if self._env is not None:
            self._env.close()
            self._env = None
        self._remove_partial()

    def _open_env(self) -> lmdb.Environment:
        if self._env is None:
            raise ValueError(f"shard {self._name} in {self._folder} is closed")
        return self._env

    def _commit(self, env: lmdb.Environment) -> None:
        """Write the waiting records in one transaction, in a larger map if they do not fit."""
        while self._waiting:
            try:
                with env.begin(write=True) as transaction:
                    for position, payload in enumerate(self._waiting, start=self._num_stored):
                        transaction.put(record_key(position), payload, append=True)
            except lmdb.MapFullError:
                env.set_mapsize(2 * env.info()["map_size"])
                continue
            self._num_stored += len(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Remove the shard if it cannot be written, and say so in one way for all causes."""
        try:
            yield
        except (OSError, lmdb.Error) as error:
            self.discard()
            full = isinstance(error, lmdb.DiskError)
            code = errno.ENOSPC if full else getattr(error, "errno", None) or errno.EIO
            text = f"cannot write shard {self._name} ({error}); nothing of it was kept: free space there and run again"
            raise OSError(code, text, str(self._folder)) from error

    def _remove_partial(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._partial_index.unlink(missing_ok=True)


def record_key(position: int) -> bytes:
    """Key of the record at this position of a shard: keys sort as the numbers do."""
    return position.to_bytes(8, "big")


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class ShardReader:
    """Reads records of one shard.

    It holds a path only: it can be pickled, and be used before and after a fork.

    Attributes:
        path: the LMDB file, absolute.
        first_id: id in the data set of the shard's first record.
    """

    path: Path
    first_id: int

    def read(self, positions: Sequence[int]) -> list[GraphRecord]:
        """Read several records, given by their positions in the shard, in one transaction.

        Raises:
            DamagedShardError: if one is missing or damaged; the message names it.
        """
        try:
            with _environment(self.path).begin() as transaction:
                payloads = [transaction.get(record_key(position)) for position in positions]
        except (OSError, lmdb.Error) as error:
            raise self._damaged(f"{self.path} cannot be read ({error}): prepare the data set again") from error
        return [self._decode(payload, position) for payload, position in zip(payloads, positions, strict=True)]

    def _decode(self, payload: bytes | None, position: int) -> GraphRecord:
        if payload is None:
            raise self._damaged(f"{self.path} has no record number {position}: prepare the data set again")
        try:
            return decode(payload, self.first_id + position)
        except ShardError as error:
            text = f"record {self.first_id + position} (number {position} of {self.path}): {error}"
            raise self._damaged(text) from error

    def _damaged(self, text: str) -> DamagedShardError:
        return DamagedShardError(text, self.path.stem)


@dataclass(frozen=True)
class _Opened:
    env: lmdb.Environment
    file: tuple[int, int, int]  # device, inode, time of modification


# LMDB opens a file once per process at most, so all readers of a process share its environment.
_opened: dict[str, _Opened] = {}
_lock = threading.Lock()


def _environment(path: Path) -> lmdb.Environment:
    """Open a shard for reading, or return it where it is open; a file that was replaced is opened anew."""
    name = str(path)
    status = path.stat()
    file = (status.st_dev, status.st_ino, status.st_mtime_ns)
    with _lock:
        opened = _opened.get(name)
        if opened is not None and opened.file == file:
            return opened.env
        if opened is not None:
            opened.env.close()
        env = lmdb.open(name, subdir=False, readonly=True, lock=False, readahead=False, create=False)
        needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        if status.st_size < needed:  # reading on would end the process with SIGBUS
            env.close()
            raise OSError(errno.EIO, f"the file has {status.st_size} bytes, its pages need {needed}", name)
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
