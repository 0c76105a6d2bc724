"""A sweep as it goes on: redrawn in place on a terminal, a line for each event and a table now and then in a log."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from rung.sweeps.outcome import Outcome, best_of

_EVERY = 60.0  # seconds between two tables in a log
_REDRAW = 1.0  # seconds between two drawings on a terminal
_SHOWN = 20


class LiveTable:
    """Shows trials, states, the best so far and the time left.

    Args:
        stream: terminal or file.
        total: trials in all.
        at_once: trials that run at the same time.
        clock: seconds.
    """

    def __init__(self, stream: TextIO, total: int, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._total = total
        self._at_once = at_once
        self._clock = clock
        self._begun = self._drawn = clock()
        self._ended_before: int | None = None
        self._height = 0

    def show(self, outcomes: Sequence[Outcome], event: str = "") -> None:
        """Show the sweep after an event, which is a line of its own in a log."""
        if self._stream.isatty():
            if not event and self._clock() - self._drawn < _REDRAW:
                return
            self._drawn = self._clock()
            lines = [*self.lines(outcomes), event] if event else self.lines(outcomes)
            up = f"\x1b[{self._height}A\x1b[J" if self._height else ""
            self._stream.write(up + "\n".join(lines) + "\n")
            self._height = len(lines)
        else:
            if event:
                self._stream.write(f"{event}; {self.status(outcomes)}\n")
            if self._clock() - self._drawn >= _EVERY:
                self._stream.write("\n".join(self.lines(outcomes)) + "\n")
                self._drawn = self._clock()
        self._stream.flush()

    def status(self, outcomes: Sequence[Outcome]) -> str:
        """Counts, the best so far and the time left, in one line."""
        counts = Counter(outcome.trial.state for outcome in outcomes)
        ended = sum(outcome.trial.ended for outcome in outcomes)
        parts = [f"{ended}/{self._total} trials ended"]
        parts += [f"{counts[state]} {state}" for state in ("running", "waiting", "pruned", "failed") if counts[state]]
        best = best_of(outcomes)
        if best is not None:
            parts.append(f"best {best.score:.4g} (trial {best.trial.number})")
        left = self._seconds_left(ended + counts["waiting"])  # most of which will not go on
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def lines(self, outcomes: Sequence[Outcome]) -> list[str]:
        """The table."""
        best = best_of(outcomes)
        lines = [f"{'trial':>7}  {'state':9}{'epochs':>7}{'score':>10}{'time':>13}  values"]
        hidden = max(0, len(outcomes) - _SHOWN)
        for outcome in outcomes[hidden:]:
            trial = outcome.trial
            mark = "*" if best is not None and trial.number == best.trial.number else " "
            figure = f"{outcome.score:.4g}" if outcome.objectives is not None else "-"
            lines.append(
                f"{mark}{trial.number:>6}  {trial.state:9}{outcome.epochs:>7}{figure:>10}{duration(trial.seconds):>13}"
                f"  {values_text(outcome)}"
            )
        if hidden:
            lines.insert(1, f"        ({hidden} earlier trials are not shown)")
        return [*lines, self.status(outcomes)]

    def _seconds_left(self, ended: int) -> float | None:
        """From the pace of this start, which knows pruned trials too."""
        if self._ended_before is None:
            self._ended_before = ended
        done = ended - self._ended_before
        return (self._clock() - self._begun) / done * (self._total - ended) if done else None


def values_text(outcome: Outcome) -> str:
    """What a trial tries, in short."""
    if outcome.trial.role == "untouched":
        return "untouched model"
    if outcome.trial.role == "recipe":
        return "paper's recipe"
    return point_text(outcome.trial.values)


def point_text(values: Mapping[str, Any]) -> str:
    """Values by their short names."""
    named = ((key.rpartition(".")[2], value) for key, value in values.items())
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in named)


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `3 min 5 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
