"""Two ranks on two cores against one: structures per second, and the share of time that a step waits for its data.

    python -m tests.benchmarks.data_parallel --json figures.json

Ordinary runs of CHGNet 0.3.0's size under torchrun, one thread a rank, gloo: 40 structures a step on one rank, 80 on
two, chgnet's usual batch on each rank. One and two ranks take turns. The efficiency is the median over the turns of the
speed of two ranks over twice that of one; both need the cores for themselves.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rung.config.load import to_yaml
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.runs import config_of, surrogate

ROOT = Path(__file__).resolve().parents[2]
_STRUCTURES, _PER_RANK, _TURNS = 400, 40, 5


def figures_of(data: Path, storage: Path, ranks: int, turn: int) -> dict[str, float]:
    """Run two epochs on so many ranks; medians of the steps after the first."""
    config = config_of(
        data,
        storage,
        f"{ranks}-{turn}",
        model={"init": "0.3.0"},
        reference={"mode": "frozen"},
        batch={"structures": _PER_RANK * ranks},
        training={"epochs": 3, "log_every": 1},
        launcher={"kind": "torchrun"},
    )
    path = storage / f"{ranks}-{turn}.yaml"
    path.write_text(to_yaml(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, str(ROOT / "jobs" / "pretrain.py"), "--config", str(path)],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lines = read_metrics(RunFolder.of(config).path / "metrics.jsonl")
    steps = [line for line in lines if line.get("epoch", 0) >= 1 and "time/structures_per_second" in line]
    names = ("time/structures_per_second", "time/data_wait", "time/imbalance")
    return {name: statistics.median(line[name] for line in steps) for name in names}


def measure() -> Figures:
    """Run one and two ranks in turns."""
    with tempfile.TemporaryDirectory(prefix="rung-data-parallel-") as name:
        folder = Path(name)
        data = surrogate(folder / "data", _STRUCTURES)
        turns = [[figures_of(data, folder, ranks, turn) for ranks in (1, 2)] for turn in range(_TURNS)]
    speed = "time/structures_per_second"
    return {
        "efficiency_of_two_ranks": statistics.median(two[speed] / (2 * one[speed]) for one, two in turns),
        "structures_per_second_one_rank": max(one[speed] for one, _ in turns),
        "structures_per_second_two_ranks": max(two[speed] for _, two in turns),
        "data_wait_one_rank": statistics.median(one["time/data_wait"] for one, _ in turns),
        "data_wait_two_ranks": statistics.median(two["time/data_wait"] for _, two in turns),
        "imbalance_two_ranks": statistics.median(two["time/imbalance"] for _, two in turns),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    run(measure, __doc__)
