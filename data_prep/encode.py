"""The work of preparation as one pure function: raw frames in, encoded records and rejections out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from data_prep.facts import RecordFacts
from data_prep.filters import refusal
from data_prep.sources.base import ParsedFrame, Parser, RawFrame, Rejection
from rung.config.preparation import FilterConfig, GraphConfig
from rung.data.record import Reason, RecordError
from rung.data.shard import ShardEntry

_MOST_RAW: Final = 65_536  # bytes of a frame's own text that the quarantine keeps


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record ready to be stored, and what is remembered of it."""

    entry: ShardEntry
    facts: RecordFacts


Outcome = Encoded | Rejection


@dataclass(frozen=True)
class Encoder:
    """Parses raw frames, builds their graphs and encodes both. Pure and picklable: any process may do it.

    Attributes:
        parser: of the frames' source.
        graph: cutoffs of the graphs.
        filters: what is set aside by looking at one record alone.
    """

    parser: Parser
    graph: GraphConfig
    filters: FilterConfig

    def __call__(self, frames: Sequence[RawFrame]) -> list[Outcome]:
        """Return one outcome for each raw frame, in their order."""
        parsed = zip(frames, self.parser(frames), strict=True)
        return [self._outcome(raw, frame) for raw, frame in parsed]

    def _outcome(self, raw: RawFrame, frame: ParsedFrame | Rejection) -> Outcome:
        if isinstance(frame, Rejection):
            return _with_text(frame, raw)
        record = frame.record
        names = (record.source, record.material_id, record.frame_id)
        if not record.labels:
            detail = "it has no energy, forces, stress or magnetic moments"
            return _with_text(Rejection(*names, raw.position, Reason.NO_LABEL, detail), raw)
        try:
            entry = ShardEntry.of(record, self.graph)
        except RecordError as error:
            return _with_text(Rejection(*names, raw.position, error.reason, error.detail), raw)
        return Encoded(entry, RecordFacts.of(frame, raw.position, refusal(frame, entry.row, self.filters)))


def _with_text(rejection: Rejection, raw: RawFrame) -> Rejection:
    return replace(rejection, raw=raw.payload[:_MOST_RAW].decode("utf-8", "replace"))
