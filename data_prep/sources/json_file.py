"""What the readers of JSON files share: streaming frames out of a file, and turning what goes wrong into rejections."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from data_prep.filters import Rejection
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.raw_file import RawFile
from data_prep.sources.scan import Scanner
from rung.data.record import RecordError

JSON_CHUNK: Final = 256
"""Raw frames parsed together: about 2 MB of MPtrj, little enough to hold, enough to be worth sending."""


class JsonFile:
    """Streams the raw frames of a JSON file; never holds more than one block or one frame.

    Args:
        path: the file, plain or gzip.
        name: name of the data set.
        parser: what turns its frames into records.
        layout: from the file's beginning, the depth of its records and the key they stand under (None: any).
    """

    chunk = JSON_CHUNK

    def __init__(
        self,
        path: Path,
        name: str,
        parser: "FrameParser",
        layout: Callable[[bytes], tuple[int, str | None]],
    ) -> None:
        self.name = name
        self.parser = parser
        self._layout = layout
        self._file = RawFile(path)

    def frames(self) -> Iterator[RawFrame]:
        """Stream the frames in the order of the file."""
        depth, under = self._layout(self._file.peek(1 << 20))
        for span in Scanner(self._file.read, depth, str(self._file.path)):
            if under is None or span.path[0] == under:
                yield RawFrame(span.path, span.start, span.data)

    def progress(self) -> tuple[int, int, str]:
        """Bytes of the file read, bytes of the file, unit."""
        return self._file.position, self._file.num_bytes, "B"

    def facts(self) -> dict[str, Any]:
        """Size and hash of the file; reads the rest of it where a limit stopped early."""
        return {"sha256": self._file.sha256(), "num_bytes": self._file.num_bytes, "gzip": self._file.is_gzip}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class FrameParser(ABC):
    """Parses frames one by one with `parse_frame`, and turns what it refuses into rejections.

    Attributes:
        source: name of the data set.
    """

    source: str

    @abstractmethod
    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn one raw frame into a record; `RecordError` refuses it."""

    def names(self, frame: RawFrame) -> tuple[str, str]:
        """Material and frame id for the list of rejections, as far as they are known without parsing."""
        return "", "/".join(frame.path)

    def __call__(self, frames: Sequence[RawFrame]) -> list[ParsedFrame | Rejection]:
        """Return one parsed frame or one rejection for each raw frame, in their order."""
        return [self._parsed_or_rejected(frame) for frame in frames]

    def _parsed_or_rejected(self, frame: RawFrame) -> ParsedFrame | Rejection:
        try:
            return self.parse_frame(frame)
        except RecordError as error:
            material_id, frame_id = self.names(frame)
            return Rejection(self.source, material_id, frame_id, frame.position, error.reason, error.detail)
