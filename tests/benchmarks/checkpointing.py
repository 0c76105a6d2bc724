"""What checkpoints cost a step of CHGNet 0.3.0's size, and how long a resume takes.

python -m tests.benchmarks.checkpointing --json FILE

Runs with and without checkpoints take turns and do the same steps, so each step is compared with itself: the fastest
of its repeats with checkpoints against the fastest without. CPU seconds count the writing thread as if the step had to
wait for it, and are less disturbed by other work on the machine. The resume is timed from the call of `train` to the
first gradient after it, less what a step takes.
"""

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from rung.training.run import RunFolder
from rung.training.trainer import train
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.runs import NotesSteps, config_of, surrogate

_STRUCTURES: Final = 60
_REPEATS: Final = 3
_SECTIONS: Final[dict[str, Any]] = {
    "batch": {"structures": 4},
    "model": {"init": "0.3.0"},
    "reference": {"mode": "frozen"},
}
_EVERY: Final = 10  # steps, of half a second; far more often than anybody would


class StopsAfter(NotesSteps):
    """Leaves after a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._last = step

    def should_stop(self, step: int) -> bool:
        """Whether that step is done."""
        super().should_stop(step)
        return step >= self._last


def step_seconds(data: Path, storage: Path, name: str, every: int) -> tuple[list[float], list[float]]:
    """Wall time and CPU time of each step of two epochs."""
    training = {"epochs": 2, "checkpoint_every": every, "log_every": 1000}
    context = NotesSteps()
    train(config_of(data, storage, name, training=training, **_SECTIONS), context)
    return _differences(context.times), _differences(context.cpu_times)


def _differences(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


def _fastest(repeats: list[list[float]]) -> list[float]:
    return [min(times) for times in zip(*repeats, strict=True)]


def resume_seconds(data: Path, storage: Path, step: float) -> float:
    """From the call of `train` on a stopped run to its first gradient, without that step itself."""
    config = config_of(data, storage, "resumed", training={"epochs": 1}, **_SECTIONS)
    train(config, StopsAfter(2))
    begin, context = time.perf_counter(), StopsAfter(3)
    train(config, context)
    return context.times[0] - begin - step


def measure() -> Figures:
    """Take turns, and compare."""
    with tempfile.TemporaryDirectory(prefix="rung-checkpointing-") as scratch:
        data, storage = surrogate(Path(scratch) / "data", _STRUCTURES), Path(scratch) / "runs"
        rows: dict[int, list[tuple[list[float], list[float]]]] = {0: [], _EVERY: []}
        for repeat in range(_REPEATS):
            for every in sorted(rows, reverse=bool(repeat % 2)):
                rows[every].append(step_seconds(data, storage, f"{every}-{repeat}", every))
        wall, cpu = ({every: _fastest([row[i] for row in repeats]) for every, repeats in rows.items()} for i in (0, 1))
        seconds = statistics.mean(wall[0])
        folder = RunFolder.of(config_of(data, storage, f"{_EVERY}-0")).checkpoints()
        size = sum(file.stat().st_size for file in folder.path(folder.steps()[-1]).iterdir())
        return {
            "overhead": sum(wall[_EVERY]) / sum(wall[0]) - 1,
            "overhead_cpu_seconds": sum(cpu[_EVERY]) / sum(cpu[0]) - 1,
            "checkpoint_every_steps": _EVERY,
            "seconds_per_step": seconds,
            "checkpoint_mib": size / 2**20,
            "resume_seconds": resume_seconds(data, storage, seconds),
            "slowest_repeat_over_fastest": max(sum(row[0]) for row in rows[0]) / sum(wall[0]),
        }


if __name__ == "__main__":
    run(measure, __doc__)
