"""The files that source.path names: a file, a folder, a glob, or a list of them, on this machine or behind a URL."""

import os
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn

import fsspec
import orjson

from data_prep.sources.raw_file import BrokenFileError, RawFile, is_url

_GLOB: Final = re.compile(r"[*?\[]")


def expand(paths: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    """All files that `paths` names, those of a folder or a glob in the order of their names.

    Args:
        paths: files, folders and globs.
        pattern: what the names of a folder's files have to match; folders inside it are not looked into.

    Raises:
        BrokenFileError: one of them does not exist, or names no file.
    """
    files: list[str] = []
    for path in paths:
        found = _files(path, pattern)
        if not found:
            raise BrokenFileError(f"cannot open source.path {path}: it names no file of this kind ({pattern.pattern})")
        files += found
    return list(dict.fromkeys(files))


def absolute(path: str) -> str:
    """A local path without ~; a URL as it is."""
    return path if is_url(path) else str(Path(path).expanduser())


def file_name(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/").rpartition("/")[2] or path


def _files(path: str, pattern: re.Pattern[str]) -> list[str]:
    path = absolute(path)
    system, inside = _filesystem(path)
    try:
        if not system.exists(inside) and _GLOB.search(inside):
            return _urls(system, [str(name) for name in system.glob(inside)], path)
        if system.isdir(inside):
            names = [str(name) for name in system.ls(inside, detail=False)]
            matching = [name for name in names if pattern.search(file_name(name)) and not system.isdir(name)]
            return _urls(system, matching, path)
    except OSError as error:
        raise BrokenFileError(f"cannot open source.path {path}: {error.strerror or error}") from error
    return [path]


def walk(root: str) -> Iterator[tuple[str, str, int]]:
    """Every file below a folder as (its path or URL, its path from the folder, its size in bytes), by name.

    Links to folders are followed, each folder once. A file, rather than a folder, is itself.

    Raises:
        BrokenFileError: the folder cannot be read.
    """
    root = absolute(root)
    if not is_url(root):
        yield from _walk_local(root)
        return
    system, inside = _filesystem(root)
    try:
        found = system.find(inside, detail=True)
    except Exception as error:
        raise BrokenFileError(f"cannot open source.path {root}: {error}") from error
    for name in sorted(found):
        relative = name[len(inside) :].strip("/") or file_name(name)
        yield _urls(system, [name], root)[0], relative, int(found[name].get("size") or 0)


def _walk_local(root: str) -> Iterator[tuple[str, str, int]]:
    if not os.path.isdir(root):  # noqa: PTH112 - a loop of links is not a folder, and pathlib raises there
        try:
            size = Path(root).stat().st_size
        except OSError as error:
            raise BrokenFileError(f"cannot open source.path {root}: {error.strerror}") from error
        yield root, file_name(root), size
        return

    def refuse(error: OSError) -> NoReturn:
        raise BrokenFileError(f"cannot read the folder {error.filename} below source.path: {error.strerror}") from error

    seen = set[tuple[int, int]]()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        status = os.stat(folder)  # noqa: PTH116 - os.walk gives text
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118
            size = os.stat(path).st_size if os.path.exists(path) else 0  # noqa: PTH110, PTH116
            yield path, os.path.relpath(path, root), size


class InputFiles:
    """Opens files one after the other and keeps what is known of them: bytes read, sizes, hashes.

    Args:
        sizes: of the files in order, bytes.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes
        self._num_bytes = sum(sizes.values())
        self._hashes: dict[str, str] = {}
        self._done = 0
        self._open: RawFile | None = None
        self._gzip = False

    def open(self, path: str) -> RawFile:
        """Open a file, and close the one before it, which is read to its end.

        Raises:
            BrokenFileError: one of the two cannot be read.
        """
        self._finish()
        self._open = RawFile(path)
        self._gzip |= self._open.is_gzip
        return self._open

    def progress(self) -> tuple[int, int, str]:
        """Bytes read, bytes of all files, unit."""
        inside = self._open.position if self._open else 0
        return self._done + inside, self._num_bytes, "B"

    def identity(self) -> dict[str, Any]:
        """What tells at once whether the files are those of an earlier call: names, sizes, times of change."""
        found = [(path, size, changed_at(path)) for path, size in self._sizes.items()]
        return {"files": len(found), "sha256": sha256(orjson.dumps(found)).hexdigest()}

    def facts(self) -> dict[str, Any]:
        """Hash and size of all files together; reads what has not been read."""
        self._finish()
        for path in self._sizes.keys() - self._hashes.keys():
            try:
                with RawFile(path) as file:
                    self._hashes[path] = file.sha256()
            except BrokenFileError:
                self._hashes[path] = ""  # it gives no record, and its rejection says why
        return {
            "sha256": combined_hash([self._hashes[path] for path in self._sizes]),
            "num_bytes": self._num_bytes,
            "gzip": self._gzip,
            "files": len(self._sizes),
        }

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _finish(self) -> None:
        if self._open is None:
            return
        self._hashes[str(self._open.path)] = self._open.sha256()
        self._done += self._open.num_bytes
        self.close()


class FileSource:
    """What the sources that read files share.

    Args:
        name: of the data set.
        sizes: of the files that are read, in order, bytes.
    """

    def __init__(self, name: str, sizes: dict[str, int]) -> None:
        self.name = name
        self._paths = tuple(sizes)
        self._files = InputFiles(sizes)

    def identity(self) -> dict[str, Any]:
        """Names, sizes and times of the files."""
        return self._files.identity()

    def progress(self) -> tuple[int, int, str]:
        """Bytes of the files read, bytes of all, unit."""
        return self._files.progress()

    def facts(self) -> dict[str, Any]:
        """Hash and size of the files; reads the rest of them where a limit stopped early."""
        return self._files.facts()

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def sizes_of(paths: Sequence[str]) -> dict[str, int]:
    """Size of each file in bytes; opening them says what cannot be read before any work is done.

    Raises:
        BrokenFileError: a file cannot be opened, is empty, or of a kind that is never read.
    """
    sizes = {}
    for path in paths:
        with RawFile(path) as file:
            sizes[path] = file.num_bytes
    return sizes


def changed_at(path: str) -> int | None:
    """When a local file was last changed, ns since 1970; None where nobody says."""
    try:
        return None if is_url(path) else os.stat(path).st_mtime_ns  # noqa: PTH116 - the text may be any path
    except OSError:
        return None


def combined_hash(hashes: Sequence[str]) -> str:
    """One SHA-256 for several files: that of the file where there is one, else of their hashes in order."""
    return hashes[0] if len(hashes) == 1 else sha256("\n".join(hashes).encode()).hexdigest()


def read_materials(path: str | None) -> dict[str, str]:
    """The map of source.materials: from a folder or a task id to a material id.

    Raises:
        BrokenFileError: the file cannot be read, or is no JSON object of texts.
    """
    if path is None:
        return {}
    with RawFile(absolute(path)) as file:
        try:
            content = orjson.loads(b"".join(file.lines()))
        except orjson.JSONDecodeError as error:
            raise BrokenFileError(f"source.materials {path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise BrokenFileError(f"source.materials {path} must be a JSON object {{folder or task id: material id}}")
    return content


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(path)
    except Exception as error:
        raise BrokenFileError(f"cannot open source.path {path}: {error}") from error


def _urls(system: Any, names: list[str], path: str) -> list[str]:
    """Names on a file system as paths that can be opened, sorted."""
    return sorted(system.unstrip_protocol(name) if is_url(path) else name for name in names)
