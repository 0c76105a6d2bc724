"""What a sweep leaves: the best model, evaluated on materials that no choice was made with, and summary.json."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rung.config.tree import EvaluateConfig, ExportConfig, SweepConfig
from rung.evaluation.evaluate import evaluate_model
from rung.evaluation.export import export_model
from rung.sweeps.importance import importance
from rung.sweeps.outcome import Outcome, best_of, ranked, verdict
from rung.training.metrics import Metrics
from rung.training.run import SUMMARY_NAME, RunFolder

MODEL_NAME = "chgnet.pth.tar"


def write_results(config: SweepConfig, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Export and evaluate the best model, and write summary.json.

    Args:
        config: the sweep, with absolute paths.
        outcomes: of all trials.

    Returns:
        The summary.

    Raises:
        ValueError: no trial finished; names what went wrong with each.
        PhysicsError: the best model breaks a law that every potential obeys.
    """
    best = best_of(outcomes)
    if best is None:
        errors = "; ".join(f"trial {one.trial.number} {one.trial.error or one.trial.state}" for one in outcomes)
        raise ValueError(f"no trial of the sweep finished with {', '.join(config.sweep.objectives)}: {errors}")
    folder = RunFolder.of(config).path / "best"
    run = folder.parent / "trials" / best.trial.name
    exported = export_model(ExportConfig(run=str(run), output=str(folder / MODEL_NAME)))
    test, num_test = _test_errors(config, exported.model, folder, best)
    untouched = next((one for one in outcomes if one.trial.role == "untouched" and one.summary), None)
    counts = Counter(one.trial.state for one in outcomes)
    summary = {
        "sweep": str(folder.parent),
        "objectives": list(config.sweep.objectives),
        "units": {"energy": "eV/atom", "force": "eV/Å", "stress": "GPa", "magmom": "μB", "seconds": "s"},
        "verdict": verdict(outcomes),
        "states": dict(counts),
        "epochs": sum(one.epochs for one in outcomes),
        "seconds": sum(one.trial.seconds for one in outcomes),
        "best": {
            "trial": best.trial.number,
            "values": dict(best.trial.values),
            "run": str(run),
            "model": exported.model,
            "validation": dict(best.summary.best["validation"]) if best.summary else {},
            "test": test,
            "num_test_records": num_test,
        },
        "untouched_test": dict(untouched.summary.best["test"]) if untouched and untouched.summary else {},
        "importance": importances(outcomes),
        "trials": [_row(outcome) for outcome in ranked(outcomes)],
    }
    RunFolder(folder.parent).write(SUMMARY_NAME, json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def _test_errors(config: SweepConfig, model: str, folder: Path, best: Outcome) -> tuple[Metrics, int]:
    """Errors of the exported file on the test materials, and their number; the set may have none."""
    if best.summary is None or best.summary.num_records["test"] == 0:
        return {}, 0
    evaluation = EvaluateConfig(model=model, output=str(folder / "test"), data=config.data, batch=config.batch)
    summary = evaluate_model(evaluation)
    return summary.errors, summary.num_records


def importances(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Importance of each key of the space, from all searched trials that have their objectives."""
    known = [one for one in outcomes if one.trial.role == "search" and math.isfinite(one.score)]
    return importance([one.trial.values for one in known], [one.score for one in known])


def _row(outcome: Outcome) -> dict[str, Any]:
    row = asdict(outcome.trial)
    return row | {
        "epochs": outcome.epochs,
        "objectives": list(outcome.objectives) if outcome.objectives else None,
        "score": outcome.score if math.isfinite(outcome.score) else None,
        "test": dict(outcome.summary.best["test"]) if outcome.summary else None,
    }
