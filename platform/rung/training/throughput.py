"""How fast the loop runs, how much of its time it waits for data, and how much memory it takes."""

import resource
import time

import torch

from rung.data.sampler import StepPlan
from rung.training.metrics import Metrics


class Stopwatch:
    """Times steps between two readings. Each step ends in a device synchronisation, so wall time is device time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._waiting = 0.0
        self._working = 0.0
        self._plans: list[StepPlan] = []

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
        self._plans.append(plan)

    def read(self) -> Metrics:
        """Figures since the last reading, at least one step ago, of all ranks together where ranks share the work.

        `time/structures_per_second`, `time/atoms_per_second`, `time/angles_per_second`; `time/seconds_per_step`;
        `time/data_wait`, the share of time spent waiting for batches; `time/imbalance`, predicted cost of the slowest
        rank over the mean; `memory/peak_mib` of this rank since the start of the process.
        """
        total = self._waiting + self._working
        work = [plan.workload for plan in self._plans]
        figures = {
            "time/structures_per_second": sum(each.num_structures for each in work) / total,
            "time/atoms_per_second": sum(each.num_atoms for each in work) / total,
            "time/angles_per_second": sum(each.num_angles for each in work) / total,
            "time/seconds_per_step": total / len(work),
            "time/data_wait": self._waiting / total,
            "time/imbalance": sum(each.imbalance for each in work) / len(work),
            "memory/peak_mib": peak_memory_mib(self._device),
        }
        self._clear()
        return figures


def peak_memory_mib(device: torch.device) -> float:
    """Most memory taken so far, MiB: the GPU's by torch, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
