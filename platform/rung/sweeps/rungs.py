"""Asynchronous successive halving (ASHA, Li et al. 2018, arXiv 1810.05934), from rung to rung.

Every searched trial pauses at each rung: after grace, grace x reduction, ... epochs. A free place goes to a new trial
while there are any, since a rung is judged the better the more have come; then to the best trial that waits among the
1 / reduction best of its rung so far, of the highest rung first. The paper fills a place the other way round, for a
supply of trials without end. Nobody waits for a straggler but where a rung would let nobody through.

Tune's scheduler of that name does not pause: a trial is stopped or not when it arrives, judged by those before it, and
so the first ones always go on. The demo's sweep takes half of its epochs this way (tests/benchmarks/README.md).
"""

from collections.abc import Sequence

from rung.config.tree import SweepConfig
from rung.sweeps.outcome import Outcome, outcome_of, score_after
from rung.sweeps.stages import Decision
from rung.sweeps.trials import Trial, Trials


class Rungs:
    """The rungs of a sweep. A trial's `generation` is the number of those that it was let through.

    Args:
        config: the sweep.
        trials: its trials.
    """

    def __init__(self, config: SweepConfig, trials: Trials) -> None:
        self._trials = trials
        self._objectives = config.sweep.objectives
        self._reduction = config.sweep.scheduler.reduction
        self.epochs = _epochs_of_rungs(config)
        """After how many epochs each rung is, the lowest first."""

    def pause_after(self, trial: Trial) -> int | None:
        """Epochs at the next rung; None above the last one."""
        if trial.role != "search" or trial.generation >= len(self.epochs):
            return None
        return self.epochs[trial.generation]

    def waits(self, outcome: Outcome) -> bool:
        """Whether a trial that does not run has come to its next rung.

        Where its metrics are ahead of its checkpoint it does these steps again, with the same outcome.
        """
        rung = self.pause_after(outcome.trial)
        return rung is not None and rung <= outcome.epochs < self._trials.config_of(outcome.trial).training.epochs

    def decide(self) -> Decision:
        """The one that goes on now, if any, and those that no later arrival can help."""
        members = [
            outcome_of(self._trials, trial, self._objectives)
            for trial in self._trials.known()
            if trial.role == "search" and trial.state != "failed"
        ]
        chosen: list[int] = []
        drop: list[int] = []
        settled = True  # whether everybody who can come to this rung is there
        for level, epochs in enumerate(self.epochs):
            here = [one.trial for one in members if one.trial.generation == level and not one.trial.ended]
            waiting = [trial.number for trial in here if trial.state == "waiting"]
            settled = settled and len(waiting) == len(here)
            order = self._order(members, epochs)
            through = order[: max(int(len(order) / self._reduction), int(settled))]
            going = [number for number in through if number in waiting]
            if settled:
                drop += [number for number in waiting if number not in going]
            if going:
                chosen, settled = going[:1], False
        for number in chosen:
            self._trials.update(number, generation=self._trials[number].generation + 1, state="running")
        return Decision(chosen, drop)

    def _order(self, members: Sequence[Outcome], epochs: int) -> list[int]:
        """Numbers of the trials that have come so far, from best to worst."""
        come = [one for one in members if any(epoch.epochs == epochs for epoch in one.curve)]
        come.sort(key=lambda one: (score_after(one, epochs, self._objectives), one.trial.number))
        return [one.trial.number for one in come]


def _epochs_of_rungs(config: SweepConfig) -> list[int]:
    scheduler, found, epochs = config.sweep.scheduler, [], float(config.sweep.scheduler.grace)
    while epochs < config.training.epochs:
        if not found or int(epochs) > found[-1]:
            found.append(int(epochs))
        epochs *= scheduler.reduction
    return found
