"""Data sets in object storage: copied once per node into a local cache of limited size, and read from there.

A set lies in the cache under the hash of its manifest, so it is never mistaken for another and never out of date. Each
process that uses a set holds a shared lock on it; sets that nobody holds make room for new ones, the longest unused
first.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fsspec

from rung.config.progress import followed
from rung.config.sections import DataConfig
from rung.data.codec import ShardError
from rung.data.dataset import MANIFEST_NAME, Manifest, files_of, parse_manifest, read_manifest
from rung.data.shard import file_sha256

logger = logging.getLogger(__name__)

_COMPLETE: Final = ".complete"
_LOCK: Final = ".lock"
_THREADS: Final = 4

_held: dict[Path, int] = {}  # descriptors of the shared locks of this process, by folder; they end with it


def is_url(path: str) -> bool:
    """Whether a path is a URL that fsspec has to open."""
    return "://" in path


def manifest_hash(path: str) -> str:
    """SHA-256 of the manifest of a data set, wherever it lies.

    Raises:
        ShardError: there is no data set, or it cannot be reached.
    """
    return manifest_at(path)[1]


def manifest_at(path: str) -> tuple[Manifest, str]:
    """The manifest of a data set, wherever it lies, and its SHA-256; see `rung.data.dataset.read_manifest`.

    Raises:
        ShardError: there is no data set, or it cannot be reached.
    """
    if not is_url(path):
        return read_manifest(Path(path).expanduser())
    text = _remote_manifest(*_file_system(path), path)
    return parse_manifest(text, path), hashlib.sha256(text).hexdigest()


def staged(config: DataConfig) -> Path:
    """The folder to read a data set from: its own, or the copy of one in object storage.

    Raises:
        ShardError: there is no data set, a file of it is damaged, or the cache has no room for it.
    """
    if not is_url(config.path):
        return Path(config.path)
    system, root = _file_system(config.path)
    text = _remote_manifest(system, root, config.path)
    manifest = parse_manifest(text, config.path)
    folder = Path(config.cache).expanduser().absolute() / hashlib.sha256(text).hexdigest()[:32]
    if folder not in _held:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # one process of a node copies, the others wait here
            if not (folder / _COMPLETE).exists():
                sizes = _sizes(system, root, manifest, config.path)
                _make_room(folder, sum(sizes.values()), config)
                _copy(system, root, folder, manifest, sizes)
                (folder / MANIFEST_NAME).write_bytes(text)
                (folder / _COMPLETE).touch()
            os.utime(folder / _COMPLETE)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except BaseException:
            os.close(descriptor)
            raise
        _held[folder] = descriptor
    return folder


def _file_system(path: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise ShardError(f"data.path {path} cannot be opened: {error}") from error


def _remote_manifest(system: Any, root: str, path: str) -> bytes:
    try:
        with _reading(path):
            return system.cat_file(f"{root}/{MANIFEST_NAME}")
    except FileNotFoundError as error:
        raise ShardError(f"{path} is no prepared data set (it has no {MANIFEST_NAME}): correct data.path") from error


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Name what was read where the error may not: each back end of fsspec has kinds of errors of its own."""
    try:
        yield
    except (ShardError, FileNotFoundError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise  # of a disk of this machine
        raise ShardError(f"{what} cannot be read: {error}") from error


def _expected(manifest: Manifest) -> dict[str, str]:
    """SHA-256 of each file that training reads, by name."""
    files = (files_of(Path(), shard) for shard in manifest.shards)
    return {path.name: sha256 for each in files for path, sha256 in each.items()}


def _sizes(system: Any, root: str, manifest: Manifest, path: str) -> dict[str, int]:
    with _reading(path):
        try:
            return {name: int(system.size(f"{root}/{name}")) for name in _expected(manifest)}
        except FileNotFoundError as error:
            raise ShardError(f"{path} is not whole: {error} is missing; prepare the data again") from error


def _make_room(folder: Path, needed: int, config: DataConfig) -> None:
    """Remove sets that nobody uses until the new one fits both the limit and the disk."""
    limit = config.cache_limit * 1e9
    if needed > limit:
        raise ShardError(
            f"{config.path} has {needed / 1e9:,.1f} GB, more than data.cache_limit allows ({config.cache_limit:g} GB):"
            " raise it, or give data.path as a folder"
        )
    others = [other for other in folder.parent.iterdir() if other.is_dir() and other != folder]
    others.sort(key=_last_used)
    used = sum(_size(other) for other in others)
    for other in others:
        if used + needed <= limit and shutil.disk_usage(folder).free > needed:
            return
        used -= _remove_unused(other)
    if used + needed > limit or shutil.disk_usage(folder).free <= needed:
        raise ShardError(
            f"no room for the {needed / 1e9:,.1f} GB of {config.path} in data.cache {config.cache}: other data sets"
            f" that are in use take {used / 1e9:,.1f} of data.cache_limit {config.cache_limit:g} GB, and the disk has"
            f" {shutil.disk_usage(folder).free / 1e9:,.1f} GB free"
        )


def _remove_unused(folder: Path) -> int:
    """Remove a set unless a process holds it; returns the bytes that this freed."""
    size = _size(folder)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        logger.info("removing %s from the cache of data sets: %.1f GB", folder, size / 1e9)
        (folder / _COMPLETE).unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name != _LOCK:
                path.unlink()
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)
    return size


def _last_used(folder: Path) -> float:
    mark = folder / _COMPLETE
    return mark.stat().st_mtime if mark.exists() else 0.0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _copy(system: Any, root: str, folder: Path, manifest: Manifest, sizes: dict[str, int]) -> None:
    """Fetch what is not there yet, several files at a time, and check every byte."""
    expected = _expected(manifest)

    def fetch(name: str) -> int:
        target = folder / name
        if not target.exists():
            temporary = folder / f".{name}.partial"
            with _reading(f"{root}/{name}"):
                system.get_file(f"{root}/{name}", str(temporary))
            if (found := file_sha256(temporary)) != expected[name]:
                temporary.unlink()
                raise ShardError(
                    f"{root}/{name} has SHA-256 {found}, its manifest says {expected[name]}: upload it again"
                )
            temporary.replace(target)
        return sizes[name]

    total = sum(sizes.values())
    with ThreadPoolExecutor(_THREADS) as pool, followed("staging", total, "B") as advance:
        for size in pool.map(fetch, expected):
            advance(size)
