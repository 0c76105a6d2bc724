"""Records that cannot be used: each is counted and listed with its reason, never replaced nor dropped in silence."""

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b

from rung.data.record import Reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """A raw record that gives no training record; one line of quarantine.jsonl.

    Attributes:
        source: name of the data set.
        material_id: as far as it is known, else empty.
        frame_id: as far as it is known, else the path of the record in its file.
        position: first byte of the record in the decompressed file, or its number.
        reason: why, as a code to count by.
        detail: what was found and what was expected.
    """

    source: str
    material_id: str
    frame_id: str
    position: int
    reason: Reason
    detail: str

    def to_json(self) -> dict[str, str | int]:
        """The rejection as the fields of a JSON object."""
        return {
            "source": self.source,
            "material_id": self.material_id,
            "frame_id": self.frame_id,
            "position": self.position,
            "reason": self.reason.value,
            "detail": self.detail,
        }


class SeenFrames:
    """Remembers which frames were kept, by a 64-bit hash of their names (about 80 bytes a frame)."""

    def __init__(self) -> None:
        self._hashes: set[bytes] = set()

    def add(self, material_id: str, frame_id: str, functional: str) -> bool:
        """Note a frame; True if it was noted before."""
        key = blake2b(f"{material_id}\0{frame_id}\0{functional}".encode(), digest_size=8).digest()
        known = key in self._hashes
        self._hashes.add(key)
        return known


def reasons_text(counts: Counter[str]) -> str:
    """The reasons with their counts, most frequent first, for one line of text."""
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common()) or "none"
