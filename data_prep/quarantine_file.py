"""quarantine.jsonl: one line for each frame that is not used, with the reason, and its text where it gave no record."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from data_prep.decide import Decision
from data_prep.facts import REASONS, FactsTable
from data_prep.sources.base import Rejection
from rung.data.codec import ShardError
from rung.data.index import Index
from rung.data.record import Reason

QUARANTINE: Final = "quarantine.jsonl"


@dataclass
class QuarantineCounts:
    """What a quarantine lists.

    Attributes:
        by_reason: frames, by reason.
        examples: name and detail of the first one of each reason.
    """

    by_reason: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str, detail: str) -> None:
        """Count a frame."""
        self.by_reason[reason] += 1
        self.examples.setdefault(reason, f"{name} ({detail})")


def write_quarantine(
    folder: Path, unreadable: Iterable[Rejection], index: Index, facts: FactsTable, decision: Decision
) -> QuarantineCounts:
    """Write the list: first the frames without a record in the order of the source, then the records set aside.

    Args:
        folder: of the data set.
        unreadable: frames that gave no record.
        index: of the stored records.
        facts: of the stored records.
        decision: about the stored records.
    """
    counts = QuarantineCounts()
    temporary = folder / f".{QUARANTINE}.partial"
    with temporary.open("w", encoding="utf-8") as file:
        for rejection in unreadable:
            _write_line(file.write, {"record_id": None, **asdict(rejection)}, counts)
        for row, detail in decision.details.items():
            line = {
                "record_id": row,
                "source": index.source[row].decode(),
                "material_id": index.material_id[row].decode(),
                "frame_id": index.frame_id[row].decode(),
                "position": int(facts.position[row]),
                "reason": REASONS[decision.reason[row]].value,
                "detail": detail,
                "raw": "",
            }
            _write_line(file.write, line, counts)
    temporary.replace(folder / QUARANTINE)
    return counts


def _write_line(write: Any, line: dict[str, Any], counts: QuarantineCounts) -> None:
    counts.add(str(line["reason"]), line["frame_id"] or line["material_id"], line["detail"])
    write(json.dumps(line, ensure_ascii=False) + "\n")


def read_quarantine(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a quarantine.

    Raises:
        ShardError: it is missing or damaged.
    """
    path = folder / QUARANTINE
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                values = json.loads(line)
                yield values | {"reason": Reason(values["reason"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path} cannot be read ({error}): prepare the data set again") from error


def unreadable_frames(folder: Path) -> Iterator[Rejection]:
    """The frames of a quarantine that gave no record.

    Raises:
        ShardError: it is missing or damaged.
    """
    for line in read_quarantine(folder):
        if line.pop("record_id") is None:
            yield Rejection(**line)
