"""How trials did: their curves, their objectives, their order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.sweeps.draw import Point
from rung.sweeps.trials import Trial, Trials
from rung.training.metrics import Metrics
from rung.training.run import SUMMARY_NAME, RunFolder, TrainSummary
from rung.training.sinks import METRICS_NAME, read_metrics

_VALIDATION = "validation/"


@dataclass(frozen=True)
class Epoch:
    """Validation errors (eV/atom, eV/Å, GPa, μB) after so many epochs; 0 is before the first step."""

    epochs: int
    errors: Metrics
    step: int = 0
    """Global steps behind it."""


@dataclass(frozen=True)
class Outcome:
    """A trial and how it did."""

    trial: Trial
    curve: tuple[Epoch, ...]
    summary: TrainSummary | None
    """Of a run that is complete."""
    objectives: tuple[float, ...] | None
    """Validation errors of its best checkpoint; absent before the first validation, or where one has no label or is
    not finite."""

    @property
    def score(self) -> float:
        """Geometric mean of the objectives; the order does not depend on their units. Infinite without objectives."""
        return score(self.objectives)

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return self.curve[-1].epochs if self.curve else 0


def score(objectives: Sequence[float] | None) -> float:
    """Geometric mean of objectives; 0 where one is 0, infinite where there are none or one is not finite."""
    if not objectives or not all(math.isfinite(value) for value in objectives):
        return math.inf
    if min(objectives) <= 0:
        return 0.0
    return math.exp(sum(map(math.log, objectives)) / len(objectives))


def score_after(outcome: Outcome, epochs: int, objectives: Sequence[str]) -> float:
    """Score of the errors after so many epochs, those on a probe set left out; infinite where one is missing."""
    names = [name for name in objectives if not name.startswith("probe_")]
    errors = next((epoch.errors for epoch in outcome.curve if epoch.epochs == epochs), {})
    values = [errors[name] for name in names if name in errors]
    return score(values) if len(values) == len(names) else math.inf


def is_complete(trials: Trials, trial: Trial) -> bool:
    """Whether the trial's run did all its steps."""
    path = trials.folder / trial.name / SUMMARY_NAME
    return path.exists() and TrainSummary.read(path).completed


def outcome_of(trials: Trials, trial: Trial, objectives: Sequence[str]) -> Outcome:
    """Read a trial's outcome from its folder.

    Args:
        trials: of the sweep.
        trial: one of them.
        objectives: names of errors.
    """
    folder = RunFolder(trials.folder / trial.name)
    curve = tuple(_curve(read_metrics(folder.path / METRICS_NAME)))
    summary = TrainSummary.read(folder.path / SUMMARY_NAME) if is_complete(trials, trial) else None
    best = dict(summary.best["validation"]) if summary else _best(curve)
    found = {**best, **trial.probe}
    values = tuple(found[name] for name in objectives if name in found)
    complete = len(values) == len(objectives) and all(map(math.isfinite, values))
    return Outcome(trial, curve, summary, values if complete else None)


def outcomes_of(trials: Trials, objectives: Sequence[str]) -> list[Outcome]:
    """Outcomes of all trials that were started, by number."""
    return [outcome_of(trials, trial, objectives) for trial in trials.known()]


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Finished trials from best to worst, then the pruned, those under way and the failed, each by epochs and score."""
    order = {"finished": 0, "pruned": 1, "waiting": 2, "running": 2, "failed": 3}

    def place(outcome: Outcome) -> tuple[Any, ...]:
        pruned_early = -outcome.epochs if outcome.trial.state != "finished" else 0
        return order[outcome.trial.state], pruned_early, outcome.score, outcome.trial.number

    return sorted(outcomes, key=place)


def best_of(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The best finished trial that has its objectives, if any."""
    finished = [one for one in ranked(outcomes) if one.trial.state == "finished" and one.objectives is not None]
    return finished[0] if finished else None


def lessons(outcomes: Sequence[Outcome]) -> list[tuple[Point, Sequence[float]]]:
    """Points and objectives of searched trials that do not run, to learn from; failed ones count as the worst."""
    searched = [one for one in outcomes if one.trial.role == "search" and one.trial.state != "running"]
    known = [one.objectives for one in searched if one.objectives is not None and one.trial.state != "failed"]
    if not known:
        return []
    worst = tuple(map(max, zip(*known, strict=True)))
    return [
        (dict(one.trial.values), worst if one.objectives is None or one.trial.state == "failed" else one.objectives)
        for one in searched
    ]


def verdict(outcomes: Sequence[Outcome]) -> str:
    """What the search gained over the untouched model and the paper's recipe, in a sentence or two."""
    best = best_of(outcomes)
    if best is None:
        return "No trial finished, so there is no best one."
    by_role = {one.trial.role: one for one in outcomes if one.trial.role != "search"}
    names = {"untouched": "the untouched model (trial 0)", "recipe": "the paper's recipe (trial 1)"}
    missing = [name for role, name in names.items() if role not in by_role or by_role[role].objectives is None]
    note = f" {' and '.join(missing)} gave no result to compare with." if missing else ""
    if best.trial.role != "search":
        return f"No searched trial beat {names[best.trial.role]}: use that, or widen the space.{note}"
    parts = [
        f"{100 * (1 - best.score / by_role[role].score):.1f} % below {name}"
        for role, name in names.items()
        if name not in missing and by_role[role].score > 0
    ]
    beaten = f": its score is {' and '.join(parts)}" if parts else ""
    return f"Trial {best.trial.number} is best{beaten}.{note}"


def _curve(lines: Sequence[Mapping[str, Any]]) -> list[Epoch]:
    found: dict[int, Epoch] = {}
    for line in lines:
        errors = {name.removeprefix(_VALIDATION): value for name, value in line.items() if name.startswith(_VALIDATION)}
        if errors:
            epochs = int(line["epoch"]) + 1 if "epoch" in line else 0
            found[epochs] = Epoch(epochs, errors, line["step"])
    return [found[epochs] for epochs in sorted(found)]


def _best(curve: Sequence[Epoch]) -> Metrics:
    """Errors at the lowest loss, as the run chooses its best checkpoint."""
    known = [one.errors for one in curve if math.isfinite(one.errors.get("loss", math.inf))]
    return min(known, key=lambda errors: errors["loss"]) if known else {}
