"""What a preparation did, in figures: summary.json and what `prepare` returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUMMARY: Final = "summary.json"
"""File in the output folder with the figures of the preparation."""


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a preparation did.

    Attributes:
        output: folder of the data set.
        records_read: raw records.
        records_kept: records in use.
        records_rejected: frames that are not used, by reason.
        shards: number of shards.
        num_bytes: size of the shards with their indices and facts.
        seconds: wall time.
        reused: True if the data set was already there and nothing was done.
    """

    output: Path
    records_read: int
    records_kept: int
    records_rejected: dict[str, int]
    shards: int
    num_bytes: int
    seconds: float
    reused: bool = False

    def to_json(self) -> dict[str, object]:
        """The figures of summary.json; units are in the keys."""
        return {
            "job": "prepare_data",
            "output": str(self.output),
            "records_read": self.records_read,
            "records_kept": self.records_kept,
            "records_rejected": sum(self.records_rejected.values()),
            "records_rejected_by_reason": self.records_rejected,
            "shards": self.shards,
            "bytes": self.num_bytes,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(self.records_read / max(self.seconds, 1e-9), 1),
        }
