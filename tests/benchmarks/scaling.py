"""How many data the higher functional needs, with pretraining and without (arXiv 2504.05565), on surrogate data.

python -m tests.benchmarks.scaling --json FILE

`study_scaling` itself, on 76 to some 700 records of 16 elements. Ten minutes on one core; stopped, it goes on.
"""

from pathlib import Path
from typing import Any

from rung.config.studies import ScalingStudyConfig
from rung.studies.scaling import study_scaling
from tests.benchmarks.drawing import Panel, draw_curves
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.surrogates import FOLDER, SEEDS, pretrained, run_config, shown, summary_of, surrogate_set

METHODS = ("scratch", "refit", "residual")
SHARES = (0.05, 0.15, 0.4, 1.0)
EPOCHS = 15
KEYS = (("energy_mae", "meV_per_atom", "energy MAE (meV/atom)"), ("force_mae", "meV_per_A", "force MAE (meV/Å)"))


def study() -> dict[str, Any]:
    """The study's summary."""
    base = run_config(
        "base",
        surrogate_set("r2SCAN"),
        model={"init": str(pretrained())},
        reference={"mode": "refit", "prior": "none"},  # the tables are what the surrogate's labels contain
        training={"epochs": EPOCHS},
    )
    tree = {"output": str(FOLDER / "scaling"), "methods": METHODS, "seeds": SEEDS, "shares": SHARES}
    config = ScalingStudyConfig.model_validate(tree | {"base": base.model_dump(mode="json")})
    return summary_of(study_scaling, config)


def measure() -> Figures:
    """Errors against number of records, before and after training; exponents; data efficiency."""
    found = study()
    figures: Figures = {"test_records": found["num_records"]["test"], "epochs": EPOCHS, "seeds": len(SEEDS)}
    for method, points in found["points"].items():
        for point in points:
            for stage, of_stage in (("zero_step", point["zero_step"]), ("fine_tuned", point["best"])):
                for key, unit, _ in KEYS:
                    name = f"{method}_n{point['records']}_{stage}_{key}_{unit}"
                    figures[name], figures[f"{name}_spread"] = shown(of_stage, key, 1e3)
        for key, _, _ in KEYS:
            law = found["laws"][method][key]
            figures[f"{method}_{key}_exponent"] = law["slope"]
            figures[f"{method}_{key}_exponent_from"] = law["slope_low"]
            figures[f"{method}_{key}_exponent_to"] = law["slope_high"]
            figures[f"{method}_{key}_r_squared"] = law["r_squared"]
    for method, ratios in found["data_efficiency"].items():
        for key, _, _ in KEYS:
            for row in ratios[key]:
                if row["ratio"] is not None:
                    figures[f"{method}_n{row['records']}_{key}_scratch_needs_times"] = row["ratio"]
    return figures


def draw(figures: Figures, path: Path) -> None:
    """Error against number of records: solid after training, and before it where there is a network to judge."""
    sizes = sorted({int(name.split("_n")[1].split("_")[0]) for name in figures if "_zero_step_" in name})
    panels = []
    for key, unit, axis in KEYS:
        series = {}
        for method in METHODS:
            for stage, shown_as in (("fine_tuned", ""), ("zero_step", ", untouched")):
                if method == "scratch" and shown_as:
                    continue
                names = [f"{method}_n{n}_{stage}_{key}_{unit}" for n in sizes]
                series[f"{method}{shown_as}"] = [(figures[name], figures[f"{name}_spread"]) for name in names]
        panels.append(Panel(axis, series, dict.fromkeys(series, sizes)))
    draw_curves(panels, "r2SCAN training records (surrogate)", f"{figures['seeds']} seeds: mean and spread", path)


if __name__ == "__main__":
    run(measure, __doc__, draw)
