"""What ASHA saves: the demo's sweep beside the full grid of the same trials, and the spread of the best over seeds.

Runs in demo/ of the current folder; what is there already is not run again. The data and the pretrained model are those
of `make sweep-demo`.

The seed spread is the range of the best grid point's error over three seeds; the sweep's best counts as good as the
grid's where it lies within that range of it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Figures, run

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "jobs" / "configs" / "demo"
SEEDS = (1, 2)  # besides the sweep's own, 0
KEEP = ("--tracking.kind", "off")


def job(name: str, config: str, *overrides: str) -> dict[str, Any]:
    """Run a job with a config file (or one of the demo's, by name) and return its summary."""
    path = config if config.endswith(".yaml") else str(DEMO / f"{config}.yaml")
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), "--config", path, *overrides]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(Path(done.stdout.splitlines()[-1]).read_text())


def seed_run(run_folder: Path, seed: int) -> float:
    """Validation energy error of a trial's configuration with another seed, eV/atom."""
    overrides = ["--run.name", f"seed-{seed}", "--run.seed", str(seed), "--run.storage", "demo/runs"]
    summary = job("finetune", str(run_folder / "config.yaml"), *overrides, "--launcher.kind", "local", *KEEP)
    return summary["best"]["validation"]["energy_mae"]


def measure() -> Figures:
    """Run both sweeps and the seeds."""
    for half in ("gga", "r2scan"):
        if not Path(f"demo/data/{half}/summary.json").exists():
            job("prepare_data", f"prepare_{half}")
    if not Path("demo/runs/pretrain/summary.json").exists():
        job("pretrain", "pretrain")
    asha = job("sweep", "sweep")
    grid = job("sweep", "sweep", "--run.name", "grid", "--sweep.scheduler.kind", "none", *KEEP)
    best = grid["best"]
    errors = [best["validation"]["energy_mae"], *(seed_run(Path(best["run"]), seed) for seed in SEEDS)]
    spread = max(errors) - min(errors)
    found = asha["best"]["validation"]["energy_mae"]
    return {
        "trials": len(asha["trials"]),
        "epochs": searched_epochs(asha),
        "epochs_of_grid": searched_epochs(grid),
        "epochs_ratio_vs_grid": searched_epochs(asha) / searched_epochs(grid),
        "best_energy_mae_ev_per_atom": found,
        "best_energy_mae_of_grid_ev_per_atom": best["validation"]["energy_mae"],
        "seed_spread_ev_per_atom": spread,
        "best_within_seed_spread": found <= best["validation"]["energy_mae"] + spread,
        "test_energy_mae_ev_per_atom": asha["best"]["test"]["energy_mae"],
        "test_energy_mae_untouched_ev_per_atom": asha["untouched_test"]["energy_mae"],
        "trial_seconds": asha["seconds"],
        "trial_seconds_of_grid": grid["seconds"],
    }


def searched_epochs(summary: dict[str, Any]) -> int:
    """Epochs of the searched trials; both sweeps run the same two baselines."""
    return sum(trial["epochs"] for trial in summary["trials"] if trial["role"] == "search")


if __name__ == "__main__":
    run(measure, __doc__)
