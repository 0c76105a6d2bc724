"""What the readers of JSON files share: streaming frames out of a file, and turning what goes wrong into rejections."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from data_prep.sources.base import ParsedFrame, RawFrame, Rejection
from data_prep.sources.inputs import FileSource, expand, sizes_of
from data_prep.sources.scan import Scanner
from rung.data.record import RecordError

JSON_CHUNK: Final = 256
"""Raw frames parsed together: about 2 MB of MPtrj, little enough to hold, enough to be worth sending."""


JSON_NAMES: Final = re.compile(r"\.(json|jsonl|ndjson)(\.(gz|bz2))?$", re.IGNORECASE)
"""Files of a folder that are taken for JSON."""


class JsonFile(FileSource):
    """Streams the raw frames of JSON files; never holds more than one block or one record.

    Args:
        paths: the files, plain, gzip or bzip2.
        name: name of the data set.
        parser: what turns its frames into records.
        layout: from a file's beginning, the depth of its records and the key they stand under (None: any).
        cut: the frames of one record, where it holds several.

    Raises:
        BrokenFileError: a path cannot be opened, or names no file.
    """

    chunk = JSON_CHUNK

    def __init__(
        self,
        paths: Sequence[str],
        name: str,
        parser: "FrameParser",
        layout: Callable[[bytes], tuple[int, str | None]],
        cut: Callable[[RawFrame], Iterable[RawFrame]] = lambda frame: (frame,),
    ) -> None:
        super().__init__(name, sizes_of(expand(paths, JSON_NAMES)))
        self.parser = parser
        self._layout = layout
        self._cut = cut

    def frames(self) -> Iterator[RawFrame]:
        """Stream the frames in the order of the files; positions count through all of them."""
        start = 0
        for path in self._paths:
            file = self._files.open(path)
            depth, under = self._layout(file.peek(1 << 20))
            for span in Scanner(file.read, depth, path):
                if under is None or span.path[0] == under:
                    yield from self._cut(RawFrame(span.path, start + span.start, span.data))
            start += file.given


@dataclass(frozen=True)
class FrameParser(ABC):
    """Parses frames one by one with `parse_frame`, and turns what it refuses into rejections.

    Attributes:
        source: name of the data set.
    """

    source: str

    @abstractmethod
    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn one raw frame into a record.

        Raises:
            RecordError: it cannot become one.
        """

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
