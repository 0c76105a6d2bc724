"""Trials that train in stages: after each a trial waits, and it is decided which of those that wait go on."""

from dataclasses import dataclass, field
from typing import Protocol

from rung.sweeps.outcome import Outcome
from rung.sweeps.trials import Trial


@dataclass(frozen=True)
class Decision:
    """Numbers of the trials that begin their next stage, and of those that never will."""

    go_on: list[int] = field(default_factory=list)
    drop: list[int] = field(default_factory=list)


class Stages(Protocol):
    """What decides. All that it knows stands in the trials' folders, so that a second start decides the same."""

    def pause_after(self, trial: Trial) -> int | None:
        """Epochs at the end of the trial's stage; None where it then runs to its end."""
        ...

    def waits(self, outcome: Outcome) -> bool:
        """Whether a trial that does not run has done its stage, and is not at its end."""
        ...

    def decide(self) -> Decision:
        """Who of those that wait goes on, now that a place is free and all trials have been started."""
        ...
