"""Population based training (Jaderberg et al. 2017, arXiv 1711.09846), generation by generation.

All searched trials train for an interval. Then each of the worst goes on from a copy of one of the best: its weights
and optimiser, and its values, perturbed. Everybody waits for everybody, so what comes out depends neither on how many
trials ran at a time nor on when the sweep was killed: all decisions follow from the trials' folders.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rung.config.search import MUTABLE
from rung.config.tree import SweepConfig
from rung.sweeps.draw import perturbed_point
from rung.sweeps.outcome import Outcome, outcome_of, score_after
from rung.sweeps.stages import Decision
from rung.sweeps.trials import Trial, Trials
from rung.training.run import INITIAL_NAME, REFERENCE_NAME, RunFolder


class Population:
    """The searched trials of a sweep, and which of them may train now.

    Args:
        config: the sweep.
        trials: its trials.
    """

    def __init__(self, config: SweepConfig, trials: Trials) -> None:
        self._config = config
        self._trials = trials
        self._objectives = config.sweep.objectives

    def pause_after(self, trial: Trial) -> int | None:
        """Epochs at the end of a trial's generation."""
        return (trial.generation + 1) * self._config.sweep.scheduler.interval if trial.role == "search" else None

    def waits(self, outcome: Outcome) -> bool:
        """Whether a trial that does not run has done its generation's epochs, and is not at its end.

        Its metrics may be a moment ahead of its checkpoint, which counts.
        """
        goal = self.pause_after(outcome.trial)
        if goal is None or not goal <= outcome.epochs < self._config.training.epochs:
            return False
        return outcome.curve[-1].step in RunFolder(self._folder_of(outcome.trial)).checkpoints().steps()

    def decide(self) -> Decision:
        """All begin a new generation; nobody does while one of the old one still trains."""
        known = [trial for trial in self._trials.known() if trial.role == "search" and not trial.ended]
        members = [outcome_of(self._trials, trial, self._objectives) for trial in known]
        generation = min((one.trial.generation for one in members), default=0)
        if not all(one.trial.generation > generation or one.trial.state == "waiting" for one in members):
            return Decision()
        self._evolve(members, generation)
        return Decision([one.trial.number for one in members])

    def _evolve(self, members: Sequence[Outcome], generation: int) -> None:
        """Let the worst go on as copies of the best; members that an earlier start has seen to are left alone."""
        scheduler = self._config.sweep.scheduler
        at = (generation + 1) * scheduler.interval
        scores = {one.trial.number: score_after(one, at, self._objectives) for one in members}
        order = sorted(members, key=lambda one: (scores[one.trial.number], one.trial.number))
        few = max(1, int(scheduler.quantile * len(order))) if len(order) > 1 else 0
        worst = {one.trial.number for one in order[len(order) - few :]}
        for one in members:
            trial = one.trial
            if trial.generation > generation:
                continue
            rng = np.random.default_rng([self._config.run.seed, trial.number, generation])
            source = order[rng.integers(few)].trial if few else trial
            changes: dict[str, Any] = {"generation": generation + 1, "state": "running"}
            if trial.number in worst and scores[source.number] < scores[trial.number]:
                _copy(self._folder_of(source), self._folder_of(trial))
                takeover = {"epochs": at, "source": source.number, "values": dict(trial.values)}
                changes["values"] = perturbed_point(self._config.dimensions, dict(source.values), MUTABLE, rng)
                changes["takeovers"] = [*trial.takeovers, takeover]
            self._trials.update(trial.number, **changes)

    def _folder_of(self, trial: Trial) -> Path:
        return self._trials.folder / trial.name


def _copy(source: Path, target: Path) -> None:
    """Make a trial's run a copy of another one's. What is done twice ends the same."""
    new, old = target / ".checkpoints.new", target / "checkpoints"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source / "checkpoints", new)
    for name in (REFERENCE_NAME, INITIAL_NAME):
        if (source / name).exists():
            shutil.copy2(source / name, target / name)
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)
