"""One network trained on both functionals at once, against pretraining and then fine-tuning, at the same cost.

python -m tests.benchmarks.multi_fidelity --json FILE

Cost is the number of structures that training evaluates, forward and backward. Sequential: some epochs on the GGA set,
then some on the r2SCAN set (`refit`). Multi-fidelity: from random weights, every step holds structures of both sets,
each functional with its own reference and readout; as many structures in all. Each with the same seeds, pretraining
included. Ten minutes on one core; stopped, it goes on.
"""

import math
from pathlib import Path

import numpy as np

from rung.config.tree import TrainConfig
from rung.data.dataset import ShardDataset
from rung.orchestration.many_runs import train_one
from rung.training.run import RunFolder, TrainSummary
from tests.benchmarks.drawing import Panel, draw_bars
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.surrogates import SEEDS, run_config, surrogate_set

PRETRAINING_EPOCHS, EPOCHS = 15, 15
GGA_SHARE, R2SCAN_SHARE = 0.5, 0.4
REPLAYED = 0.75
"""Share of the multi-fidelity steps that is GGA."""

BATCH = 16
KEYS = (
    ("energy_mae", "meV_per_atom", 1e3),
    ("force_mae", "meV_per_A", 1e3),
    ("stress_mae", "GPa", 1.0),
    ("magmom_mae", "muB", 1.0),
)


def sequential(seed: int, gga: Path, r2scan: Path) -> TrainSummary:
    """Pretrain, then fine-tune."""
    first = run_config(
        f"sequential-gga-{seed}",
        gga,
        GGA_SHARE,
        optimizer={"learning_rate": 5e-3},
        training={"epochs": PRETRAINING_EPOCHS},
    )
    train_one(_seeded(first, seed))
    second = run_config(
        f"sequential-r2scan-{seed}",
        r2scan,
        R2SCAN_SHARE,
        model={"init": str(RunFolder.of(first).path)},
        reference={"mode": "refit", "start_limit": None},
        training={"epochs": EPOCHS},
    )
    return train_one(_seeded(second, seed))


def multi_fidelity(seed: int, gga: Path, r2scan: Path, epochs: int) -> TrainSummary:
    """Both at once."""
    config = run_config(
        f"multi-fidelity-{seed}",
        r2scan,
        R2SCAN_SHARE,
        reference={"mode": "scratch", "unseen": "MPtrj", "start_limit": None},  # as the other way knows them
        replay={"path": str(gga), "share": REPLAYED, "readout": "own"},
        optimizer={"learning_rate": 5e-3},
        training={"epochs": epochs},
    )
    return train_one(_seeded(config, seed))


def same_cost(gga: Path, r2scan: Path) -> tuple[int, int]:
    """Structures that the sequential runs evaluate, and epochs of the multi-fidelity run that come nearest."""
    first, second = ShardDataset(gga), ShardDataset(r2scan)
    before = len(first.select("train", GGA_SHARE)) * PRETRAINING_EPOCHS
    records = len(second.select("train", R2SCAN_SHARE))
    cost = before + records * EPOCHS
    steps = math.ceil(records / round(BATCH * (1 - REPLAYED)))
    return cost, round(cost / (steps * BATCH))


def measure() -> Figures:
    """Errors on r2SCAN test materials."""
    gga, r2scan = surrogate_set("GGA"), surrogate_set("r2SCAN")
    cost, epochs = same_cost(gga, r2scan)
    found = {
        "sequential": [sequential(seed, gga, r2scan) for seed in SEEDS],
        "multi_fidelity": [multi_fidelity(seed, gga, r2scan, epochs) for seed in SEEDS],
    }
    figures: Figures = {
        "structures_sequential": cost,
        "structures_multi_fidelity": found["multi_fidelity"][0].steps * BATCH,
        "train_records": found["sequential"][0].num_records["train"],
        "test_records": found["sequential"][0].num_records["test"],
        "seeds": len(SEEDS),
    }
    for way, summaries in found.items():
        for key, unit, factor in KEYS:
            values = [factor * summary.best["test"][key] for summary in summaries]
            name = f"{way}_{key}_{unit}"
            figures[name], figures[f"{name}_spread"] = float(np.mean(values)), float(np.std(values, ddof=1))
    return figures


def draw(figures: Figures, path: Path) -> None:
    """Errors of both ways."""
    ways = ("sequential", "multi_fidelity")
    axes = {"energy_mae_meV_per_atom": "energy MAE (meV/atom)", "force_mae_meV_per_A": "force MAE (meV/Å)"}
    panels = [
        Panel(axis, {"r2SCAN test": [(figures[f"{way}_{name}"], figures[f"{way}_{name}_spread"]) for way in ways]})
        for name, axis in axes.items()
    ]
    title = f"{figures['structures_sequential']:,} structures evaluated each, {figures['seeds']} seeds"
    draw_bars(panels, ["sequential", "multi-fidelity"], title, path)


def _seeded(config: TrainConfig, seed: int) -> TrainConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})


if __name__ == "__main__":
    run(measure, __doc__, draw)
