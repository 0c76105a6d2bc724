"""The work of preparation as one pure function: raw frames in, encoded records and rejections out."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.filters import Rejection
from data_prep.sources.base import ParsedFrame, Parser, RawFrame
from data_prep.tally import RecordFacts
from rung.config.preparation import GraphConfig
from rung.data.record import Reason, RecordError
from rung.data.shard import ShardEntry


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record ready to be stored, and what is counted of it.

    Attributes:
        entry: bytes of the record and its row of the index.
        facts: what the manifest counts.
        position: of its raw frame, for the list of rejections should it prove a duplicate.
    """

    entry: ShardEntry
    facts: RecordFacts
    position: int


Outcome = Encoded | Rejection


def encode_chunk(frames: Sequence[RawFrame], parser: Parser, cutoffs: GraphConfig) -> list[Outcome]:
    """Parse raw frames, build their graphs and encode both. Pure: any process may do it.

    Args:
        frames: of one source, in order.
        parser: that source's.
        cutoffs: of the graphs.
    """
    parsed = zip(frames, parser(frames), strict=True)
    return [frame if isinstance(frame, Rejection) else _encode(frame, raw.position, cutoffs) for raw, frame in parsed]


def _encode(frame: ParsedFrame, position: int, cutoffs: GraphConfig) -> Outcome:
    record = frame.record
    names = (record.source, record.material_id, record.frame_id)
    if not record.labels:
        detail = "it has no energy, forces, stress or magnetic moments"
        return Rejection(*names, position, Reason.NO_LABEL, detail)
    try:
        entry = ShardEntry.of(record, cutoffs)
    except RecordError as error:
        return Rejection(*names, position, error.reason, error.detail)
    return Encoded(entry, RecordFacts.of(record, frame.energy_key), position)
