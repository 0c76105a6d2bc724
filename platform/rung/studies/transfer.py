"""Which treatment carries a pretrained model over to another functional best, at one budget and with seeds.

The table of arXiv 2504.05565 for any data, with what the start was worth and what was forgotten.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.config.studies import TransferStudyConfig
from rung.studies.runs import Finished, carry_out, mean_and_spread, plan, write_results
from rung.studies.transfer_report import write_report
from rung.training.metrics import TARGETS, Metrics


def study_transfer(config: TransferStudyConfig) -> Path:
    """Train every method with every seed and write `summary.json` and `report.html`.

    Started again, it goes on with the runs that are not finished.

    Returns:
        path of the summary.

    Raises:
        ValueError: a method is none, or weights or data cannot be used.
    """
    finished = carry_out(config, plan(config, config.methods, (1.0,)), config.probe)
    by_method = {name: [each for each in finished if each.planned.method == name] for name in config.methods}
    summary = {
        "methods": {name: _figures(runs) for name, runs in by_method.items()},
        "seeds": list(config.seeds),
        "num_records": dict(finished[0].summary.num_records),
        "config": config.model_dump(mode="json"),
    }
    return write_results(config.output, summary, write_report)


def _figures(runs: Sequence[Finished]) -> dict[str, Any]:
    """Mean and spread over seeds of every figure: errors on test materials in eV/atom, eV/Å, GPa and μB."""
    steps = sorted(set.intersection(*(set(run.curve) for run in runs)))
    curve = [mean_and_spread([run.curve[step] for run in runs]) for step in steps]
    return {
        "test": _errors([run.summary.best["test"] for run in runs]),
        "zero_step": _errors([run.summary.zero_step["test"] for run in runs]),
        "forgetting": {
            when: _errors([run.forgetting[when] for run in runs]) if runs[0].forgetting else {}
            for when in ("before", "after")
        },
        "curve": {
            "epoch": [step / max(1, runs[0].summary.steps) * runs[0].summary.epochs for step in steps],
            "energy_mae": [mean for mean, _ in curve],
            "spread": [spread for _, spread in curve],
        },
        "runs": [run.summary.run for run in runs],
        "num_trainable": runs[0].summary.num_trainable,
    }


def _errors(found: Sequence[Metrics]) -> dict[str, dict[str, float | None]]:
    names = [f"{target}_mae" for target in TARGETS if all(f"{target}_mae" in errors for errors in found)]
    pairs = {name: mean_and_spread([errors[name] for errors in found]) for name in names}
    return {name: {"mean": mean, "spread": spread} for name, (mean, spread) in pairs.items()}
