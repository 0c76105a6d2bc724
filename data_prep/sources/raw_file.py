"""A raw file as a stream of bytes: decompressed by content, hashed on the way, with clear errors for damage."""

import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import Any, Final, Self

GZIP_MAGIC: Final = b"\x1f\x8b"
_BLOCK: Final = 1 << 20


class BrokenFileError(ValueError):
    """The raw file as a whole cannot be read: it is damaged, cut short or of another format."""


class _HashingReader(io.RawIOBase):
    """The file's own bytes, hashed and counted as they pass."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
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
    """Reads a plain or gzip file; which of the two is decided by its first bytes, never by its name.

    Args:
        path: the file.

    Raises:
        BrokenFileError: the file cannot be opened or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.num_bytes = path.stat().st_size
            self._hashing = _HashingReader(path)
        except OSError as error:
            raise BrokenFileError(f"cannot open source.path {path}: {error.strerror}") from error
        self._buffered = io.BufferedReader(self._hashing, _BLOCK)
        self.is_gzip = self._buffered.peek(2)[:2] == GZIP_MAGIC
        self._stream: io.BufferedIOBase = self._buffered
        if self.is_gzip:
            self._stream = gzip.GzipFile(fileobj=self._buffered)
        self._head = b""
        if not self.peek(1):
            self.close()
            raise BrokenFileError(f"{path} is empty")

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

    def sha256(self) -> str:
        """SHA-256 of the whole file on disk; reads what is left of it."""
        while self._buffered.read(_BLOCK):
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

    def _read_stream(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except EOFError as error:
            raise BrokenFileError(
                f"{self.path} is gzip and ends too early, {self.position:,} bytes in: copy or download it again"
            ) from error
        except (OSError, zlib.error) as error:
            raise BrokenFileError(
                f"cannot read {self.path} beyond byte {self.position:,}: {error}; copy or download it again"
            ) from error
