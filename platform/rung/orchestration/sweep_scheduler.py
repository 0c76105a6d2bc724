"""Whether a trial goes on after an epoch: the pauses of its stages, and Tune's median stopping rule.

The rule (Golovin et al. 2017, Google Vizier) is asked about searched trials alone, and never at a trial's last epoch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule, TrialScheduler

from rung.config.search import SchedulerConfig
from rung.sweeps.outcome import Outcome, score

_TIME, _METRIC = "epochs", "score"
_NO_LIMIT = 1_000_000  # epochs; trials end by themselves
_VALIDATION = "validation/"


@dataclass(frozen=True)
class _PastTrial:
    """A trial of an earlier start, as far as schedulers look at it."""

    trial_id: str


class SweepScheduler(FIFOScheduler):
    """Decides after each epoch whether a trial goes on.

    Untouched model and paper's recipe always do. A trial that has done its last epoch does too: Tune would kill it
    before its run is wound up. A validation error that is not finite ends any trial.
    """

    def __init__(self, config: SchedulerConfig, objectives: Sequence[str], before: Sequence[Outcome]) -> None:
        """Begin with what earlier starts of the sweep have seen.

        Args:
            config: the scheduler.
            objectives: names of validation errors.
            before: trials that were started already.
        """
        super().__init__()
        self._inner = _scheduler(config)
        self._objectives = [name for name in objectives if not name.startswith("probe_")]
        self._before = {outcome.trial.number: outcome for outcome in before}
        self._searched: set[int] = set()
        self._last_epochs: dict[int, int] = {}
        self._pauses: dict[int, int | None] = {}
        self.broken: dict[int, str] = {}
        """Why trials were stopped that gave no finite errors, by number."""
        self.stopped: set[int] = set()
        """Numbers of the trials that were told to stop at the end of their stage."""
        for outcome in before:
            if outcome.trial.role == "search" and outcome.trial.ended:
                self._replay(_PastTrial(outcome.trial.name), outcome)

    def expect(self, number: int, *, searched: bool, last_epoch: int, pause_after: int | None = None) -> None:
        """Introduce a trial before Tune does, and say after how many epochs it is to stop and wait."""
        self._last_epochs[number] = last_epoch
        self._pauses[number] = pause_after
        if searched:
            self._searched.add(number)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one that an earlier start has begun."""
        number = trial.config["number"]
        if self._inner is None or number not in self._searched:
            return
        self._inner.on_trial_add(tune_controller, trial)
        if number in self._before:
            self._replay(trial, self._before[number])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether to go on after an epoch."""
        number = trial.config["number"]
        if "epoch" not in result:
            return TrialScheduler.CONTINUE
        errors = {name: value for name, value in result.items() if name.startswith(_VALIDATION)}
        wrong = [f"{name} is {value}" for name, value in errors.items() if not math.isfinite(value)]
        epochs = result["epoch"] + 1
        if wrong:
            self.broken[number] = f"{', '.join(wrong)} after {epochs} epochs"
            return TrialScheduler.STOP
        if number not in self._searched or epochs >= self._last_epochs[number]:
            return TrialScheduler.CONTINUE
        pause = self._pauses[number]
        if pause is not None and epochs >= pause:
            self.stopped.add(number)
            return TrialScheduler.STOP
        return self._tell(tune_controller, trial, epochs, errors)

    def _replay(self, trial: Any, outcome: Outcome) -> None:
        """Show the inner scheduler the epochs that an earlier start has seen; what it decided then is done."""
        if self._inner is None:
            return
        if isinstance(trial, _PastTrial):
            self._inner.on_trial_add(_CONTROLLER, trial)  # pyright: ignore[reportArgumentType]
        for epoch in outcome.curve:
            if epoch.epochs > 0:
                named = {f"{_VALIDATION}{name}": value for name, value in epoch.errors.items()}
                self._tell(_CONTROLLER, trial, epoch.epochs, named)

    def _tell(self, controller: Any, trial: Any, epochs: int, errors: Mapping[str, float]) -> str:
        value = score([errors[name] for key in self._objectives if (name := f"{_VALIDATION}{key}") in errors])
        if self._inner is None or not math.isfinite(value):
            return TrialScheduler.CONTINUE
        return self._inner.on_trial_result(controller, trial, {_TIME: epochs, _METRIC: value})


_CONTROLLER = SimpleNamespace(get_live_trials=list, get_trials=list)
"""What a scheduler may ask of Tune while it is shown the past: nobody waits."""


def _scheduler(config: SchedulerConfig) -> TrialScheduler | None:
    match config.kind:
        case "median":
            return MedianStoppingRule(time_attr=_TIME, metric=_METRIC, mode="min", grace_period=config.grace)
        case "asha" | "pbt" | "none":
            return None
