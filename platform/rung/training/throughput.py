"""How fast the loop runs, and how much of its time it waits for data."""

import time

from rung.data.sampler import StepPlan
from rung.training.metrics import Metrics


class Stopwatch:
    """Times steps between two readings. Each step ends in a device synchronisation, so wall time is device time."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._waiting = 0.0
        self._working = 0.0
        self._structures = 0
        self._steps = 0

    def data_arrived(self) -> None:
        """The batches of a step are there."""
        now = time.perf_counter()
        self._waiting += now - self._last
        self._last = now

    def step_done(self, plan: StepPlan) -> None:
        """A step is finished; its global batch counts."""
        now = time.perf_counter()
        self._working += now - self._last
        self._last = now
        self._structures += plan.num_structures
        self._steps += 1

    def read(self) -> Metrics:
        """Figures since the last reading: structures/s of all ranks, s per step, share of time spent waiting."""
        total = self._waiting + self._working
        figures = {
            "time/structures_per_second": self._structures / total,
            "time/seconds_per_step": total / self._steps,
            "time/data_wait": self._waiting / total,
        }
        self._clear()
        return figures
