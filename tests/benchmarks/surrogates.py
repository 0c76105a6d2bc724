"""What the science's benchmarks share: two surrogate sets of a few elements, and a small network pretrained on one.

Everything lands in studies/benchmarks of the current folder; what is there already is not made again, so a benchmark
that was stopped goes on where it was. Surrogate labels are those of the two models that the chgnet package carries
(0.3.0 for GGA, r2scan for r2SCAN), not DFT.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from data_prep.convert import prepare
from rung.config.tree import PrepareConfig, TrainConfig
from rung.orchestration.many_runs import train_one
from rung.training.run import RunFolder

FOLDER: Final = Path("studies/benchmarks")
ELEMENTS: Final = ["Li", "Na", "Mg", "Ca", "Al", "Ti", "V", "Mn", "Fe", "Ni", "Zn", "Zr", "O", "S", "F", "Cl"]
"""Few enough for some hundred structures to cover them all, as real sets cover theirs."""

NUMBERS: Final = {"GGA": 2400, "r2SCAN": 900}
NETWORK: Final = {"feature_dim": 24, "num_radial": 9, "num_angular": 9, "num_blocks": 2}
PAPERS_LOSS: Final = {"energy": 3, "force": 1, "stress": 0.1, "magmom": 1}
SEEDS: Final = (0, 1, 2)


def surrogate_set(functional: str) -> Path:
    """The prepared set of a functional; the smaller one's structures are among the larger one's."""
    output = FOLDER / f"set-{functional}"
    source = {"kind": "surrogate", "functional": functional, "num_structures": NUMBERS[functional], "seed": 3}
    tree = {"source": source | {"elements": ELEMENTS}, "split": {"validation": 0.1, "test": 0.2}}
    prepare(PrepareConfig.model_validate({"output": str(output), "parallel": {"workers": 1}, **tree}))
    return output


def run_config(name: str, data: Path, subset: float = 1.0, **sections: Any) -> TrainConfig:
    """A run on one core on a share of the training materials; further arguments replace whole sections."""
    tree = {
        "run": {"name": name, "storage": str(FOLDER / "runs")},
        "data": {"path": str(data), "subset": subset},
        "batch": {"structures": 16},
        "model": NETWORK,
        "reference": {"mode": "scratch"},
        "loss": PAPERS_LOSS,
        "optimizer": {"learning_rate": 1e-3},
        "launcher": {"kind": "local"},
        "tracking": {"kind": "off"},
    }
    return TrainConfig.model_validate(tree | sections)


def pretrained() -> Path:
    """Folder of a run on the GGA set, with the recipe of CHGNet 0.3.0's pretraining."""
    config = run_config(
        "pretrained",
        surrogate_set("GGA"),
        loss={"energy": 1, "force": 1, "stress": 0.1, "magmom": 0.1},
        optimizer={"learning_rate": 5e-3},
        schedule={"final": 0.005},
        training={"epochs": 20},
    )
    train_one(config)
    return RunFolder.of(config).path


def summary_of(study: Callable[[Any], Path], config: Any) -> dict[str, Any]:
    """Do a study and read its figures."""
    return json.loads(study(config).read_text())


def shown(errors: dict[str, Any], key: str, factor: float) -> tuple[float, float]:
    """Mean and spread of an error of a study's summary, times a factor."""
    pair = errors[key]
    return factor * pair["mean"], factor * (pair["spread"] or 0.0)
