"""What a source is: a stream of raw frames, and a pure function from a chunk of them to records or rejections."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data_prep.filters import Rejection
from rung.data.record import StructureRecord


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One record as the source has it, cheap to make and to send to another process.

    Attributes:
        path: the keys that lead to it in the file, outermost first.
        position: its first byte in the decompressed file, or its number in a source without a file.
        payload: its bytes, not parsed; empty in a source without a file.
    """

    path: tuple[str, ...]
    position: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ParsedFrame:
    """A record, and the key of the raw frame that its energy came from (None without an energy)."""

    record: StructureRecord
    energy_key: str | None


class Parser(Protocol):
    """Turns raw frames into records. Pure and picklable: it may run in another process, on any chunk."""

    def __call__(self, frames: Sequence[RawFrame]) -> list[ParsedFrame | Rejection]:
        """Return one parsed frame or one rejection for each raw frame, in their order."""
        ...


class Source(Protocol):
    """A data set to read."""

    @property
    def name(self) -> str:
        """Name of the data set, kept with every record."""
        ...

    @property
    def parser(self) -> Parser:
        """What turns its frames into records."""
        ...

    @property
    def chunk(self) -> int:
        """Raw frames that are best parsed together."""
        ...

    def frames(self) -> Iterator[RawFrame]:
        """Stream the raw frames in a fixed order; may be called once."""
        ...

    def progress(self) -> tuple[int, int, str]:
        """How much of the input is read: done, total, and their unit."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the manifest keeps about the input, known once the frames were read."""
        ...

    def close(self) -> None:
        """Free what the source holds."""
        ...
