"""CHGNet 0.3.0 carried to real r2SCAN data under every reference mode, beside the bundled r2scan model.

python -m tests.benchmarks.real_transfer --json FILE

`study_transfer` itself on two small sets, tested on materials that no training record belongs to: transition-metal
oxides (caneparesearch), and the element references of MatPES, where every test material is an element that no training
record has. One seed: what varies between modes is far more than what varies between seeds here. Everything lands in
studies/benchmarks of the current folder; stopped, it goes on. Some ten minutes on one core.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from data_prep.convert import prepare
from rung.config.studies import TransferStudyConfig
from rung.config.tree import EvaluateConfig, PrepareConfig
from rung.evaluation.evaluate import evaluate_model
from rung.studies.transfer import study_transfer
from tests.benchmarks.cells import DATA
from tests.benchmarks.drawing import Panel, draw_bars
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.surrogates import FOLDER, run_config, summary_of

SOURCES: Final[Mapping[str, dict[str, Any]]] = {
    "oxides": {"kind": "vasp", "path": str(DATA / "caneparesearch-r2scan")},
    "elements": {"kind": "matpes", "path": str(DATA / "matpes-element-refs" / "MatPES-r2SCAN-Element-Refs.json.gz")},
}
_ATOMS: Final = str(DATA / "isolated-atoms-mp" / "atomic_energies.csv")
ISOLATED: Final = {
    "isolated": {"path": _ATOMS, "column": "r2SCAN"},
    "isolated_pretrained": {"path": _ATOMS, "column": "PBE"},
}
METHODS: Final = ("scratch", "trainable", "frozen", "refit", "residual", "isolated")
EPOCHS: Final = 6
KEYS: Final = (
    ("energy_mae", "meV_per_atom", 1e3),
    ("force_mae", "meV_per_A", 1e3),
    ("stress_mae", "GPa", 1.0),
    ("magmom_mae", "muB", 1.0),
)


def real_set(name: str) -> Path:
    """A real set, prepared."""
    output = FOLDER / f"set-{name}"
    split = {"validation": 0.2, "test": 0.3}
    tree = {"output": str(output), "source": SOURCES[name], "split": split, "parallel": {"workers": 1}}
    prepare(PrepareConfig.model_validate(tree))
    return output


def study(name: str) -> dict[str, Any]:
    """Every mode on one set."""
    base = run_config(
        name,
        real_set(name),
        batch={"structures": 4},
        model={"init": "0.3.0"},
        reference={"mode": "refit", **ISOLATED},
        training={"epochs": EPOCHS},
    )
    tree = {"output": str(FOLDER / f"real-{name}"), "methods": METHODS, "seeds": [0]}
    config = TransferStudyConfig.model_validate(tree | {"base": base.model_dump(mode="json")})
    return summary_of(study_transfer, config)


def bundled(name: str) -> dict[str, float]:
    """Errors of the r2scan model of the chgnet package, as it is."""
    output, data = str(FOLDER / f"real-{name}-bundled"), {"path": str(real_set(name))}
    return evaluate_model(EvaluateConfig.model_validate({"model": "r2scan", "output": output, "data": data})).errors


def measure() -> Figures:
    """Errors of every mode on both sets, before and after training, and of the bundled model."""
    figures: Figures = {"epochs": EPOCHS, "seeds": 1}
    for name in SOURCES:
        figures |= measure_set(name)
    return figures


def measure_set(name: str) -> Figures:
    """The figures of one set."""
    found = study(name)
    figures: Figures = {f"{name}_{split}_records": number for split, number in found["num_records"].items()}
    for method, errors in found["methods"].items():
        for stage, of_stage in (("zero_step", errors["zero_step"]), ("fine_tuned", errors["test"])):
            for key, unit, factor in KEYS:
                figures[f"{name}_{method}_{stage}_{key}_{unit}"] = factor * of_stage[key]["mean"]
    beside = bundled(name)
    return figures | {f"{name}_bundled_r2scan_{key}_{unit}": factor * beside[key] for key, unit, factor in KEYS}


def draw(figures: Figures, path: Path) -> None:
    """Energy and force errors of both sets."""
    panels = []
    for name in SOURCES:
        for key, unit, text in (("energy_mae", "meV_per_atom", "energy"), ("force_mae", "meV_per_A", "force")):
            series = {
                label: [(float(figures[f"{name}_{m}_{stage}_{key}_{unit}"]), 0.0) for m in METHODS]
                for label, stage in (("untouched", "zero_step"), ("fine-tuned", "fine_tuned"))
            }
            beside = (float(figures[f"{name}_bundled_r2scan_{key}_{unit}"]), 0.0)
            series = {label: [*pairs, beside] for label, pairs in series.items()}
            panels.append(Panel(f"{name}: {text} MAE ({unit.replace('_per_', '/').replace('/A', '/Å')})", series))
    draw_bars(panels, [*METHODS, "r2scan"], "CHGNet 0.3.0 on real r2SCAN data, materials not trained on", path)


if __name__ == "__main__":
    run(measure, __doc__, draw)
