"""What checkpoints cost a step of CHGNet 0.3.0's size, and how long a resume takes.

python -m tests.benchmarks.checkpointing --json FILE

Runs with and without checkpoints take turns and do the same steps, so each step is compared with itself: the fastest
of its repeats with checkpoints against the fastest without. The resume is timed from the call of `train` to the first
gradient after it, less what a step takes.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from rung.training.run import RunFolder
from rung.training.trainer import train
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.runs import NotesSteps, config_of, surrogate

_STRUCTURES: Final = 100
_REPEATS: Final = 4
_EVERY: Final = 5  # steps; far more often than anybody would


class StopsAfter(NotesSteps):
    """Leaves after a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._last = step

    def should_stop(self, step: int) -> bool:
        """Whether that step is done."""
        super().should_stop(step)
        return step >= self._last


def step_seconds(data: Path, storage: Path, name: str, every: int) -> list[float]:
    """Wall time of each step of one epoch."""
    training = {"epochs": 1, "checkpoint_every": every, "log_every": 1000}
    context = NotesSteps()
    model = {"init": "0.3.0"}
    config = config_of(
        data,
        storage,
        name,
        batch={"structures": 4},
        model=model,
        reference={"mode": "frozen"},
        training=training,
    )
    train(config, context)
    return [after - before for before, after in zip(context.times, context.times[1:], strict=False)]


def resume_seconds(data: Path, storage: Path, step: float) -> float:
    """From the call of `train` on a stopped run to its first gradient, without that step itself."""
    sections = {
        "batch": {"structures": 4},
        "model": {"init": "0.3.0"},
        "reference": {"mode": "frozen"},
        "training": {"epochs": 1},
    }
    config = config_of(data, storage, "resumed", **sections)
    train(config, StopsAfter(2))
    begin, context = time.perf_counter(), StopsAfter(3)
    train(config, context)
    return context.times[0] - begin - step


def measure() -> Figures:
    """Take turns, and compare."""
    with tempfile.TemporaryDirectory(prefix="rung-checkpointing-") as scratch:
        data, storage = surrogate(Path(scratch) / "data", _STRUCTURES), Path(scratch) / "runs"
        rows: dict[int, list[list[float]]] = {0: [], _EVERY: []}
        for repeat in range(_REPEATS):
            for every in sorted(rows, reverse=bool(repeat % 2)):
                rows[every].append(step_seconds(data, storage, f"{every}-{repeat}", every))
        fastest = {every: [min(times) for times in zip(*repeats, strict=True)] for every, repeats in rows.items()}
        plain, saving = sum(fastest[0]), sum(fastest[_EVERY])
        noise = [sum(times) / plain - 1 for times in rows[0]]
        seconds = statistics.mean(fastest[0])
        folder = RunFolder.of(config_of(data, storage, f"{_EVERY}-0")).checkpoints()
        size = sum(file.stat().st_size for file in folder.path(folder.steps()[-1]).iterdir())
        return {
            "overhead": saving / plain - 1,
            "checkpoint_every_steps": _EVERY,
            "seconds_per_step": seconds,
            "checkpoint_mib": size / 2**20,
            "resume_seconds": resume_seconds(data, storage, seconds),
            "slowest_repeat_over_fastest": 1 + max(noise),
        }


if __name__ == "__main__":
    run(measure, __doc__)
