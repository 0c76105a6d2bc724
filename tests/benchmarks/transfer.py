"""The ordering of arXiv 2504.05565: treatments of a pretrained model at one budget, on surrogate data, with seeds.

python -m tests.benchmarks.transfer --json FILE

`study_transfer` itself, on some 300 records of 16 elements. A few minutes on one core; stopped, it goes on.
"""

from pathlib import Path
from typing import Any

from rung.config.studies import TransferStudyConfig
from rung.studies.transfer import study_transfer
from tests.benchmarks.drawing import Panel, draw_bars
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.surrogates import FOLDER, SEEDS, pretrained, run_config, shown, summary_of, surrogate_set

METHODS = ("scratch", "trainable", "frozen", "refit", "residual")
SHARE = 0.4
EPOCHS = 15


def study() -> dict[str, Any]:
    """The study's summary."""
    sets = {functional: surrogate_set(functional) for functional in ("GGA", "r2SCAN")}
    base = run_config(
        "base",
        sets["r2SCAN"],
        SHARE,
        model={"init": str(pretrained())},
        reference={"mode": "refit", "prior": "none"},  # the tables are what the surrogate's labels contain
        training={"epochs": EPOCHS},
    )
    tree = {"output": str(FOLDER / "transfer"), "methods": METHODS, "seeds": SEEDS, "probe": {"path": str(sets["GGA"])}}
    config = TransferStudyConfig.model_validate(tree | {"base": base.model_dump(mode="json")})
    return summary_of(study_transfer, config)


def measure() -> Figures:
    """Errors before and after training, and what is left of the pretraining functional."""
    found = study()
    figures: Figures = {
        "train_records": found["num_records"]["train"],
        "test_records": found["num_records"]["test"],
        "epochs": EPOCHS,
        "seeds": len(SEEDS),
    }
    for method, errors in found["methods"].items():
        stages = {
            "zero_step": errors["zero_step"],
            "fine_tuned": errors["test"],
            "pretraining_functional": errors["forgetting"]["after"],
        }
        for stage, of_stage in stages.items():
            for key, unit in (("energy_mae", "meV_per_atom"), ("force_mae", "meV_per_A")):
                name = f"{method}_{stage}_{key}_{unit}"
                figures[name], figures[f"{name}_spread"] = shown(of_stage, key, 1e3)
    return figures


def draw(figures: Figures, path: Path) -> None:
    """Energy and force errors by method, before and after training."""
    panels = []
    for key, unit, axis in (
        ("energy_mae", "meV_per_atom", "energy MAE (meV/atom)"),
        ("force_mae", "meV_per_A", "force MAE (meV/Å)"),
    ):
        series = {
            name: [(figures[f"{m}_{stage}_{key}_{unit}"], figures[f"{m}_{stage}_{key}_{unit}_spread"]) for m in METHODS]
            for name, stage in (("untouched", "zero_step"), ("fine-tuned", "fine_tuned"))
        }
        panels.append(Panel(axis, series))
    title = f"{figures['train_records']} r2SCAN records (surrogate), {figures['seeds']} seeds: mean and spread"
    draw_bars(panels, METHODS, title, path)


if __name__ == "__main__":
    run(measure, __doc__, draw)
