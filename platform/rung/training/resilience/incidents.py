"""What is out of the ordinary in a run but does not end it: noticed, told, and kept in incidents.jsonl."""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

_WINDOW: Final = 50
_FEWEST: Final = 10
_SHORTEST_DELAY: Final = 0.05  # s a step: below that the others' wait is not worth a line


class SpikeDetector:
    """Compares the loss of each step with the median of the last 50 before it, once there are 10.

    Args:
        factor: how many times the median is a spike; None looks for none.
    """

    def __init__(self, factor: float | None) -> None:
        self._factor = factor
        self._losses: deque[float] = deque(maxlen=_WINDOW)

    def ratio(self, loss: float) -> float | None:
        """Loss over the median, if that is a spike. Without memory of earlier starts, so that it decides nothing."""
        usual = statistics.median(self._losses) if len(self._losses) >= _FEWEST else None
        self._losses.append(loss)
        if self._factor is None or not usual or loss <= self._factor * usual:
            return None
        return loss / usual


@dataclass
class Stragglers:
    """Finds ranks that the others wait for, from the seconds that each rank takes for its share of a step.

    Attributes:
        factor: how many times the others' median is told; None looks for none.
    """

    factor: float | None
    _sums: list[float] = field(default_factory=list)
    _steps: int = 0

    def add(self, seconds: Sequence[float]) -> None:
        """Take in a step: (world_size,) seconds, one value of each rank."""
        self._sums = [a + b for a, b in zip(self._sums or [0.0] * len(seconds), seconds, strict=True)]
        self._steps += 1

    def found(self) -> tuple[int, float, float] | None:
        """The slowest rank since the last call, if it is one: rank, its and the others' seconds per step."""
        means = [each / max(1, self._steps) for each in self._sums]
        self._sums, self._steps = [], 0
        if self.factor is None or len(means) < 2:
            return None
        slowest = max(range(len(means)), key=means.__getitem__)
        others = statistics.median(mean for rank, mean in enumerate(means) if rank != slowest)
        if means[slowest] <= self.factor * others or means[slowest] - others < _SHORTEST_DELAY:
            return None
        return slowest, means[slowest], others
