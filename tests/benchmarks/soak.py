"""Ten thousand steps of a tiny model: memory and file handles stay flat, and no process is left behind.

python -m tests.benchmarks.soak --json FILE

The run has data workers, validations and a checkpoint every 50 steps, and is started as a process of its own. Memory is
that of the process and its workers, sampled every 100 steps; the slope is a least-squares line through the second half.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from rung.data.dataset import ShardDataset
from rung.training.trainer import train
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.runs import NotesSteps, config_of, surrogate

_STEPS: Final = 10_000
_EVERY: Final = 100
_STRUCTURES: Final = 400
_BATCH: Final = 2


def soak(data: Path, storage: Path) -> None:
    """Train, and write samples of memory and handles to storage / samples.json."""
    samples: list[tuple[int, float, int]] = []
    myself = psutil.Process()

    def sample(step: int) -> None:
        if step % _EVERY == 0:
            processes = [myself, *myself.children(recursive=True)]
            memory = sum(process.memory_info().rss for process in processes) / 2**20
            samples.append((step, memory, sum(process.num_fds() for process in processes)))

    steps = -(-len(ShardDataset(data).select("train")) // _BATCH)
    training = {"epochs": -(-_STEPS // steps), "checkpoint_every": 50, "log_every": 10}
    sections = {"batch": {"structures": _BATCH}, "data": {"path": str(data), "workers": 1}}
    train(config_of(data, storage, "soak", training=training, **sections), NotesSteps(sample))
    (storage / "samples.json").write_text(json.dumps(samples))


def measure() -> Figures:
    """Start the run, and look at its samples and at what is left of it."""
    with tempfile.TemporaryDirectory(prefix="rung-soak-") as scratch:
        data, storage = surrogate(Path(scratch) / "data", _STRUCTURES), Path(scratch) / "runs"
        process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.soak", "run", str(data), str(storage)])
        children: set[psutil.Process] = set()
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                children |= set(psutil.Process(process.pid).children(recursive=True))
            time.sleep(1.0)
        if process.returncode:
            raise RuntimeError(f"the soak run ended with code {process.returncode}")
        _, alive = psutil.wait_procs(list(children), timeout=10)
        samples = np.array(json.loads((storage / "samples.json").read_text()))
        half = samples[len(samples) // 2 :]
        slope = np.polyfit(half[:, 0], half[:, 1], 1)[0]
        return {
            "steps": int(samples[-1, 0]),
            "slope_mib_per_1000_steps": float(1000 * slope),
            "memory_mib_at_half": float(half[0, 1]),
            "memory_mib_at_end": float(half[-1, 1]),
            "handles_at_half": int(half[0, 2]),
            "handles_at_end": int(half[-1, 2]),
            "processes_seen": len(children),
            "processes_left": len(alive),
        }


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        soak(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        run(measure, __doc__)
