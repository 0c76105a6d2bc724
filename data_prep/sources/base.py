"""What a source is: a stream of raw frames, and a pure function from a chunk of them to records or rejections."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rung.data.record import Reason, StructureRecord


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
    """A record, and what its source says of the calculation; None where it does not say.

    Attributes:
        record: structure and labels.
        energy_key: key of the raw frame that the energy came from; None without an energy.
        converged: whether the electronic steps of this frame converged.
        task_type: kind of calculation in the source's words, in small letters: "static", "nscf", "dfpt", ...
        hubbard_u: whether +U was applied.
    """

    record: StructureRecord
    energy_key: str | None
    converged: bool | None = None
    task_type: str | None = None
    hubbard_u: bool | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A raw frame that cannot become a record at all.

    Attributes:
        source: name of the data set.
        material_id: as far as it is known, else empty.
        frame_id: as far as it is known, else the path of the record in its file.
        position: first byte of the record in the decompressed file, or its number.
        reason: why, as a code to count by.
        detail: what was found and what was expected.
        raw: beginning of the frame's own text, to be read and corrected.
    """

    source: str
    material_id: str
    frame_id: str
    position: int
    reason: Reason
    detail: str
    raw: str = ""


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
        """Stream the raw frames in a fixed order; may be called once.

        Raises:
            BrokenFileError: the input cannot be read to its end.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """What tells at once whether the input is the one of an earlier call; cheaper than a hash of all of it."""
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
