"""Small runs to measure on: a surrogate data set, a config, and a context that notes when each step ends."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.convert import prepare
from rung.config.tree import PrepareConfig, TrainConfig
from rung.training.context import LocalContext

TINY = {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 3}


class NotesSteps(LocalContext):
    """One rank on the CPU that calls `note` in every step, before the update."""

    def __init__(self, note: Callable[[int], None] = lambda _: None) -> None:
        super().__init__("cpu")
        self.times: list[float] = []
        self.cpu_times: list[float] = []
        self._note = note

    def should_stop(self, step: int) -> bool:
        """Note the time, and the CPU seconds of all threads of the process."""
        self.times.append(time.perf_counter())
        self.cpu_times.append(time.process_time())
        self._note(step)
        return super().should_stop(step)


def surrogate(folder: Path, number: int) -> Path:
    """Prepare surrogate structures."""
    tree = {"source": {"kind": "surrogate", "functional": "GGA", "num_structures": number}}
    prepare(PrepareConfig.model_validate({"output": str(folder), "split": {"validation": 0.1, "test": 0.1}, **tree}))
    return folder


def config_of(shards: Path, storage: Path, name: str, **sections: Any) -> TrainConfig:
    """A local run; keyword arguments replace whole sections."""
    tree = {
        "run": {"name": name, "storage": str(storage)},
        "data": {"path": str(shards)},
        "model": TINY,
        "reference": {"mode": "scratch"},
        "launcher": {"kind": "local"},
        "tracking": {"kind": "off"},
    }
    return TrainConfig.model_validate(tree | sections)
