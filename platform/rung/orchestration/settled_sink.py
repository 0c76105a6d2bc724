"""Metrics held back until a checkpoint holds their steps, for a tracker that cannot take a value back.

A run that may rewind (`faults.non_finite: rewind`) undoes steps and does them again at a lower rate. What it never
undoes is what its newest checkpoint holds.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rung.training.checkpoint import CheckpointStore
from rung.training.run import RunFolder
from rung.training.sinks import MetricSink, RunDescription


class SettledSink:
    """Passes metrics on once they are final.

    Args:
        sink: gets them, in order.
        interval: seconds between two looks at the checkpoints.
    """

    def __init__(self, sink: MetricSink, interval: float = 1.0) -> None:
        self._sink = sink
        self._interval = interval
        self._store: CheckpointStore | None = None
        self._held: list[tuple[int, dict[str, float]]] = []
        self._looked_at = 0.0

    def start(self, description: RunDescription) -> None:
        """Introduce the run."""
        self._store = RunFolder(description.folder).checkpoints()
        self._sink.start(description)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Hold metrics; a step before the last one means that the run went back, and all after it is void."""
        if self._held and step < self._held[-1][0]:
            self._held = [(other, held) for other, held in self._held if other < step]
        self._held.append((step, dict(metrics)))
        if time.monotonic() - self._looked_at >= self._interval:
            self._looked_at = time.monotonic()
            self._pass_on()

    def finish(self, artifacts: Sequence[Path]) -> None:
        """Pass on the rest: the last checkpoint holds all steps."""
        self._pass_on()
        self._sink.finish(artifacts)

    def abort(self) -> None:
        """Pass on what is final; the next start does the other steps again."""
        self._pass_on()
        self._sink.abort()

    def _pass_on(self) -> None:
        steps = self._store.steps() if self._store is not None else []
        newest = steps[-1] if steps else -1
        while self._held and self._held[0][0] <= newest:
            step, metrics = self._held.pop(0)
            self._sink.log(metrics, step)
