"""How many data of the higher functional are needed, with pretraining and without (arXiv 2504.05565, scaling law)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.config.studies import ScalingStudyConfig
from rung.studies.power_law import PowerLaw
from rung.studies.runs import Finished, carry_out, mean_and_spread, plan, write_results
from rung.studies.scaling_report import write_report
from rung.training.metrics import TARGETS


def study_scaling(config: ScalingStudyConfig) -> Path:
    """Train every method on every subset with every seed and write `summary.json` and `report.html`.

    Started again, it goes on with the runs that are not finished.

    Returns:
        path of the summary.

    Raises:
        ValueError: a method is none, or weights or data cannot be used.
    """
    finished = carry_out(config, plan(config, config.methods, config.shares))
    by_method = {name: [each for each in finished if each.planned.method == name] for name in config.methods}
    keys = [f"{target}_mae" for target in TARGETS if f"{target}_mae" in finished[0].summary.best["test"]]
    laws = {name: {key: _law(runs, key, config.fit_from) for key in keys} for name, runs in by_method.items()}
    yardstick = config.methods[0]
    summary = {
        "yardstick": yardstick,
        "points": {name: _points(runs, keys) for name, runs in by_method.items()},
        "laws": {
            name: {key: law.to_json() if law else None for key, law in found.items()} for name, found in laws.items()
        },
        "zero_data": {name: _zero_data(runs, keys) for name, runs in by_method.items()},
        "data_efficiency": {
            name: {key: _efficiency(by_method[name], key, laws[yardstick][key]) for key in keys}
            for name in config.methods[1:]
        },
        "seeds": list(config.seeds),
        "fit_from": config.fit_from,
        "num_records": dict(finished[-1].summary.num_records),
        "config": config.model_dump(mode="json"),
    }
    return write_results(config.output, summary, write_report)


def _by_size(runs: Sequence[Finished]) -> dict[int, list[Finished]]:
    groups: dict[int, list[Finished]] = {}
    for run in runs:
        groups.setdefault(run.summary.num_records["train"], []).append(run)
    return dict(sorted(groups.items()))


def _points(runs: Sequence[Finished], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Errors on test materials after training and before, mean and spread over seeds, for each number of records."""
    points = []
    for records, group in _by_size(runs).items():
        point: dict[str, Any] = {"records": records}
        for when in ("best", "zero_step"):
            found = {key: mean_and_spread([getattr(run.summary, when)["test"][key] for run in group]) for key in keys}
            point[when] = {key: {"mean": mean, "spread": spread} for key, (mean, spread) in found.items()}
        points.append(point)
    return points


def _law(runs: Sequence[Finished], key: str, fit_from: int) -> PowerLaw | None:
    """The law through all runs with enough records, seeds as points of their own."""
    used = [run.summary for run in runs if run.summary.num_records["train"] >= fit_from]
    return PowerLaw.fit([s.num_records["train"] for s in used], [s.best["test"][key] for s in used])


def _zero_data(runs: Sequence[Finished], keys: Sequence[str]) -> dict[str, float]:
    """Errors without a step: the initial weights with the reference of the largest subset."""
    largest = list(_by_size(runs).values())[-1]
    return {key: mean_and_spread([run.summary.zero_step["test"][key] for run in largest])[0] for key in keys}


def _efficiency(runs: Sequence[Finished], key: str, yardstick: PowerLaw | None) -> list[dict[str, float | None]]:
    """For each subset, how many records the yardstick's law needs for the same error, and the ratio."""
    rows = []
    for records, group in _by_size(runs).items():
        error, _ = mean_and_spread([run.summary.best["test"][key] for run in group])
        needed = yardstick.records_for(error) if yardstick else None
        rows.append({"records": records, "equals": needed, "ratio": needed / records if needed else None})
    return rows
