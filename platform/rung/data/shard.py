"""A shard: some thousand records in one LMDB file, and beside it an index of what each record holds."""

import errno
import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import lmdb
import numpy as np

from rung.config.sections import GraphConfig
from rung.data.codec import encode
from rung.data.graph import graph_record
from rung.data.record import StructureRecord

SPLITS: Final = ("train", "validation", "test")
"""Parts of a data set; the index stores the position in this tuple."""

NUMBER_COLUMNS: Final[Mapping[str, np.dtype]] = {
    "split": np.dtype("|u1"),
    "labels": np.dtype("|u1"),
    "num_atoms": np.dtype("<i4"),
    "num_bonds": np.dtype("<i4"),
    "num_short_bonds": np.dtype("<i4"),
    "num_angles": np.dtype("<i4"),
}
"""Columns of the index that hold numbers, one row per record."""

TEXT_COLUMNS: Final = ("source", "material_id", "frame_id", "functional")
"""Columns of the index that hold names, as UTF-8 bytes."""

_FIRST_MAP_SIZE: Final = 64 << 20  # bytes; doubled whenever it is full
_BYTES_PER_COMMIT: Final = 8 << 20


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A record ready to be stored: its bytes, and its row of the index but for the split."""

    payload: bytes
    labels: int
    num_atoms: int
    num_bonds: int
    num_short_bonds: int
    num_angles: int
    source: str
    material_id: str
    frame_id: str
    functional: str

    @classmethod
    def of(cls, record: StructureRecord, cutoffs: GraphConfig) -> Self:
        """Build the graph of a record and encode both; this is the work that can be spread over processes.

        Raises:
            RecordError: if the structure has no usable graph.
        """
        graph = graph_record(record, cutoffs)
        return cls(
            payload=encode(graph),
            labels=int(record.labels),
            num_atoms=record.num_atoms,
            num_bonds=graph.num_bonds,
            num_short_bonds=graph.num_short_bonds,
            num_angles=graph.num_angles,
            source=record.source,
            material_id=record.material_id,
            frame_id=record.frame_id,
            functional=record.functional,
        )


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """A finished shard, as the manifest lists it. The hashes are SHA-256, hexadecimal."""

    name: str
    num_records: int
    lmdb_sha256: str
    index_sha256: str


def data_path(folder: Path, name: str) -> Path:
    """LMDB file of a shard."""
    return folder / f"{name}.lmdb"


def index_path(folder: Path, name: str) -> Path:
    """Index file of a shard."""
    return folder / f"{name}.index.npz"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardWriter:
    """Writes one shard. Both files appear whole, the index last, when `finish` is called, or not at all.

    Use as a context manager: leaving it without `finish`, by an exception for instance, removes what was written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._partial = folder / f".{name}.lmdb.partial"
        self._partial_index = folder / f".{name}.index.npz.partial"
        self._numbers: list[tuple[int, ...]] = []
        self._texts: list[tuple[bytes, ...]] = []
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._num_stored = 0
        self._env: lmdb.Environment | None = None
        with self._all_or_nothing():
            self._remove_partial()
            self._env = lmdb.open(str(self._partial), subdir=False, map_size=_FIRST_MAP_SIZE, lock=False, sync=False)

    def __len__(self) -> int:
        return len(self._numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def add(self, entry: ShardEntry, split: int) -> None:
        """Store a record.

        Args:
            entry: the record.
            split: position in `SPLITS`.

        Raises:
            OSError: if the shard cannot be written; nothing of it is left then.
        """
        if not 0 <= split < len(SPLITS):
            raise ValueError(f"split is {split}; it is a position in {SPLITS}")
        row = {"split": split, **vars(entry)}
        self._numbers.append(tuple(row[column] for column in NUMBER_COLUMNS))
        self._texts.append(tuple(row[column].encode() for column in TEXT_COLUMNS))
        self._waiting.append(entry.payload)
        self._waiting_bytes += len(entry.payload)
        if self._waiting_bytes >= _BYTES_PER_COMMIT:
            with self._all_or_nothing():
                self._commit(self._open_env())

    def finish(self) -> ShardInfo:
        """Bring the shard to disk and give it its name.

        Raises:
            OSError: if it cannot be written, on a full disk for instance; nothing of it is left then.
        """
        if not self._numbers:
            raise ValueError(f"shard {self._name} in {self._folder} would be empty: add a record first")
        with self._all_or_nothing():
            env = self._open_env()
            self._commit(env)
            env.sync(True)
            env.close()
            self._env = None
            _write_index(self._partial_index, self._numbers, self._texts)
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
            _sync_folder(self._folder)
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


def _write_index(path: Path, numbers: Sequence[tuple[int, ...]], texts: Sequence[tuple[bytes, ...]]) -> None:
    """Write the columns as an .npz file that depends on them alone: the time stamps of its members are fixed."""
    columns = dict(zip(NUMBER_COLUMNS, zip(*numbers, strict=True), strict=True))
    arrays = {name: np.array(values, dtype=NUMBER_COLUMNS[name]) for name, values in columns.items()}
    arrays |= {
        name: np.array(values, dtype=np.bytes_)
        for name, values in zip(TEXT_COLUMNS, zip(*texts, strict=True), strict=True)
    }
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
