"""Tune's events, written down as they come: in each trial's folder, on the screen, and in MLflow."""

import logging
import time
from typing import Any

from ray.tune import Callback

from rung.config.search import SearchConfig
from rung.orchestration.sweep_scheduler import SweepScheduler
from rung.orchestration.sweep_tracking import SweepTracker
from rung.sweeps.outcome import Outcome, is_complete, outcome_of, outcomes_of
from rung.sweeps.table import LiveTable, values_text
from rung.sweeps.trials import Trials

logger = logging.getLogger(__name__)


class SweepJournal(Callback):
    """Keeps the trials' books. It runs in the driver, which alone writes them."""

    def __init__(
        self,
        search: SearchConfig,
        trials: Trials,
        scheduler: SweepScheduler,
        tracker: SweepTracker | None,
        table: LiveTable,
    ) -> None:
        self._search = search
        self._trials = trials
        self._scheduler = scheduler
        self._tracker = tracker
        self._table = table
        self._clocks: dict[int, tuple[float, float]] = {}
        self._failed: dict[int, str] = {}
        self._outcomes = {one.trial.number: one for one in outcomes_of(trials, search.objectives)}

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps copies of callbacks for a restore of its own, which sweeps do not use."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial's process is up."""
        number = trial.config["number"]
        known = self._trials[number]
        self._clocks[number] = (time.monotonic(), known.seconds)
        self._trials.update(number, starts=known.starts + 1)
        if self._tracker is not None:
            self._tracker.follow(number, self._trials.config_of(known))
        self._show(number, "goes on" if known.starts else "started")

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """An epoch, or the end of a run."""
        number = trial.config["number"]
        if "failed" in result:
            self._failed[number] = result["failed"]
        probe = {name.removeprefix("probe/"): value for name, value in result.items() if name.startswith("probe/")}
        self._trials.update(number, seconds=self._seconds(number), **({"probe": probe} if probe else {}))
        self._show(number, "")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial returned, or the scheduler stopped it."""
        number = trial.config["number"]
        if number in self._scheduler.stopped:
            self._scheduler.stopped.discard(number)
            self._trials.update(number, state="waiting", seconds=self._seconds(number))
            del self._clocks[number]
            self._show(number, "waits for the others")
            return
        error = self._failed.get(number) or self._scheduler.broken.get(number, "")
        complete = is_complete(self._trials, self._trials[number])
        self._end(number, "failed" if error else "finished" if complete else "pruned", error)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """A trial's process was lost more often than launcher.max_failures."""
        cause = trial.get_pickled_error() or trial.get_error()
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        self._end(trial.config["number"], "failed", f"its process was lost: {lines[0] if lines else 'no message'}")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        """Time passes."""
        self._table.show(self.outcomes())

    def drop(self, number: int) -> None:
        """A trial that waited will not go on."""
        if self._tracker is not None:  # it may have been an earlier start that trained it
            self._tracker.follow(number, self._trials.config_of(self._trials[number]))
        self._end(number, "pruned", "")

    def outcomes(self) -> list[Outcome]:
        """How all trials stand."""
        return [self._outcomes[number] for number in sorted(self._outcomes)]

    def _end(self, number: int, state: str, error: str) -> None:
        self._trials.update(number, state=state, error=error, seconds=self._seconds(number))
        if self._tracker is not None:
            self._tracker.end(number, state, error)
        self._show(number, f"{state}: {error}" if error else state)

    def _show(self, number: int, event: str) -> None:
        self._outcomes[number] = outcome_of(self._trials, self._trials[number], self._search.objectives)
        shown = f"trial {number} ({values_text(self._outcomes[number])}) {event}" if event else ""
        self._table.show(self.outcomes(), shown)

    def _seconds(self, number: int) -> float:
        if number not in self._clocks:
            return self._trials[number].seconds
        begun, before = self._clocks[number]
        return before + time.monotonic() - begun
