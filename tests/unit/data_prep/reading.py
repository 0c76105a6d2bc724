"""Reading whole sources."""

from collections.abc import Sequence
from contextlib import closing

from data_prep.sources.base import ParsedFrame, Rejection, Source


def read_all(source: Source) -> list[ParsedFrame | Rejection]:
    """Parse every frame of a source, and close it."""
    with closing(source):
        return source.parser(list(source.frames()))


def good(frames: Sequence[ParsedFrame | Rejection]) -> list[ParsedFrame]:
    """The frames, none of which may be a rejection."""
    parsed = [frame for frame in frames if isinstance(frame, ParsedFrame)]
    assert len(parsed) == len(frames), frames
    return parsed
