"""Trials made of files alone."""

import json

import pytest

from rung.config.tree import SweepConfig
from rung.sweeps.trials import Trials
from rung.training.run import RunFolder, TrainSummary

SPACE = {"optimizer.learning_rate": {"log_uniform": [1e-5, 1e-2]}, "model.freeze_depth": {"grid": [0, 1, 2]}}


@pytest.fixture
def make_sweep(tmp_path):
    """Make the config of a sweep; keyword arguments are keys of its search."""

    def make(**search):
        return SweepConfig.model_validate(
            {
                "run": {"name": "sweep", "storage": str(tmp_path)},
                "data": {"path": "/data"},
                "model": {"init": "0.3.0"},
                "training": {"epochs": 9},
                "sweep": {"space": SPACE, "trials": 6, **search},
            }
        )

    return make


@pytest.fixture
def play():
    """Write what a trial leaves: validation errors by epoch, and its summary where it finished."""

    def write(trials: Trials, number, energies, state="finished", **changes):
        trials.propose(number, [])
        folder = RunFolder(trials.folder / f"trial-{number:03}")
        lines = [
            {
                "step": epoch * 10,
                "validation/loss": energy,
                "validation/energy_mae": energy,
                "validation/force_mae": 2 * energy,
                **({"epoch": epoch - 1} if epoch else {}),
            }
            for epoch, energy in enumerate(energies)
        ]
        folder.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        if state == "finished":
            best = {"loss": min(energies), "energy_mae": min(energies), "force_mae": 2 * min(energies)}
            summary = TrainSummary(
                run=str(folder.path),
                model="m",
                steps=90,
                epochs=9,
                num_parameters=10,
                num_trainable=5,
                best_step=10,
                completed=True,
                num_records={"train": 8, "validation": 4, "test": 4},
                zero_step={"validation": best, "test": best},
                best={"validation": best, "test": best},
            )
            folder.write("summary.json", json.dumps(summary.to_dict()))
        return trials.update(number, state=state, seconds=10.0, **changes)

    return write
