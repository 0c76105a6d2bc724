"""A raw file as a stream of bytes: local or a URL, decompressed by content, hashed on the way, clear about damage."""

import bz2
import gzip
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self, cast

import fsspec

GZIP_MAGIC: Final = b"\x1f\x8b"
_BZIP2_MAGIC: Final = b"BZh"
_BLOCK: Final = 1 << 20
_REMOTE_BLOCK: Final = 8 << 20
_LONGEST_LINE: Final = 64 << 20

_PICKLE: Final = "a Python pickle, which runs code when it is loaded: it is never read; export it as JSON or extxyz"
_WEB_PAGE: Final = "a web page, not data: the download failed; get it again"
_REFUSED: Final = {
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _PICKLE),
    **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html"), _WEB_PAGE),
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\xfd7zXZ\x00": "compressed by xz: unpack it first (plain, gzip and bzip2 are read)",
    b"\x28\xb5\x2f\xfd": "compressed by zstandard: unpack it first (plain, gzip and bzip2 are read)",
}
"""What some files begin with that are taken for data, and what to do about them."""

_BOMB_BYTES: Final = 64 << 20
_BOMB_RATIO: Final = 500
"""Real data shrink 3- to 30-fold. A file that has grown this much more than that is damaged or made to do harm."""


class BrokenFileError(ValueError):
    """The raw file as a whole cannot be read: it is damaged, cut short or of another format."""


class _HashingReader(io.RawIOBase):
    """The file's own bytes, hashed and counted as they pass."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        self.position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class RawFile:
    """Reads a plain, gzip or bzip2 file; which of them is decided by its first bytes, never by its name.

    Args:
        path: a local path, or a URL that fsspec knows (s3://, gs://, https://, ...).

    Attributes:
        path: as given.
        num_bytes: size of the file on disk; 0 where a server does not say.
        given: decompressed bytes read so far.
        is_gzip: whether it is gzip.
        is_compressed: whether it is gzip or bzip2.

    Raises:
        BrokenFileError: the file cannot be opened, is empty, or of a kind that is never read. Reading raises it too,
            where the file is damaged, cut short, or out of reach.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        file, self.num_bytes = _opened(path)
        self._hashing = _HashingReader(file)
        self._buffered = io.BufferedReader(self._hashing, _BLOCK)
        self.given = 0
        self._head = b""
        self._stream: io.BufferedIOBase = self._buffered
        try:
            self._decompress()
        except BrokenFileError:
            self.close()
            raise

    @property
    def position(self) -> int:
        """Bytes of the file on disk (compressed, if it is) read so far."""
        return self._hashing.position

    def peek(self, count: int) -> bytes:
        """Return up to `count` of the next decompressed bytes without consuming them."""
        while len(self._head) < count:
            block = self._read_stream(count - len(self._head))
            if not block:
                break
            self._head += block
        return self._head[:count]

    def read(self, count: int) -> bytes:
        """Return up to `count` decompressed bytes; empty at the end of the file."""
        if self._head:
            block, self._head = self._head[:count], self._head[count:]
            return block
        return self._read_stream(count)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that are left, with their ends; the last one may have none."""
        rest = b""
        while block := self.read(_BLOCK):
            *whole, rest = (rest + block).splitlines(keepends=True)
            yield from whole
            if len(rest) > _LONGEST_LINE:
                raise BrokenFileError(f"{self.path} has a line of more than {_LONGEST_LINE >> 20} MiB: it is damaged")
        if rest:
            yield rest

    def sha256(self) -> str:
        """SHA-256 of the whole file on disk; reads what is left of it."""
        while self._read_raw():
            pass
        return self._hashing.digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._buffered.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decompress(self) -> None:
        try:
            magic = self._buffered.peek(8)
        except Exception as error:
            raise self._unreadable(error) from error
        self.is_gzip = magic.startswith(GZIP_MAGIC)
        if self.is_gzip:
            self._stream = gzip.GzipFile(fileobj=self._buffered)
        self.is_compressed = self.is_gzip or magic.startswith(_BZIP2_MAGIC)
        if self.is_compressed and not self.is_gzip:
            self._stream = cast("io.BufferedIOBase", bz2.BZ2File(self._buffered))
        head = self.peek(9)
        if not head:
            raise BrokenFileError(f"{self.path} is empty")
        for beginning, what in _REFUSED.items():
            if head.startswith(beginning):
                raise BrokenFileError(f"{self.path} is {what}")

    def _read_raw(self) -> bytes:
        try:
            return self._buffered.read(_BLOCK)
        except Exception as error:
            raise self._unreadable(error) from error

    def _read_stream(self, count: int) -> bytes:
        try:
            block = self._stream.read(count)
        except EOFError as error:
            raise BrokenFileError(
                f"{self.path} is {'gzip' if self.is_gzip else 'bzip2'} and ends too early, {self.position:,} bytes in:"
                " copy or download it again"
            ) from error
        # The back ends of fsspec raise kinds of their own, from aiohttp's to botocore's.
        except Exception as error:
            raise self._unreadable(error) from error
        self.given += len(block)
        if self.given > max(_BOMB_BYTES, _BOMB_RATIO * self.position):
            raise BrokenFileError(
                f"{self.path} grows more than {_BOMB_RATIO}-fold when it is decompressed ({self.given >> 20} MiB"
                f" out of {self.position:,} bytes): it is damaged or no data set"
            )
        return block

    def _unreadable(self, error: Exception) -> BrokenFileError:
        return BrokenFileError(
            f"cannot read {self.path} beyond byte {self.position:,}: {error}; copy or download it again"
        )


def is_url(path: str | Path) -> bool:
    """Whether fsspec has to be asked for a file."""
    return "://" in str(path)


def _opened(path: str | Path) -> tuple[io.RawIOBase, int]:
    """The open file, and its size in bytes (0 where a server does not say)."""
    try:
        if not is_url(path):
            local = Path(path)
            return local.open("rb", buffering=0), local.stat().st_size
        system, inside = fsspec.core.url_to_fs(str(path))
        file = system.open(inside, "rb", block_size=_REMOTE_BLOCK, cache_type="readahead")
        return cast("io.RawIOBase", file), int(system.size(inside) or 0)
    except OSError as error:
        raise BrokenFileError(f"cannot open source.path {path}: {error.strerror or error}") from error
    # An unknown protocol is a ValueError, a missing back end an ImportError, and servers have kinds of their own.
    except Exception as error:
        raise BrokenFileError(f"cannot open source.path {path}: {error}") from error
