"""The table: complete in a log, short on events."""

import io

from rung.sweeps.outcome import outcomes_of
from rung.sweeps.table import LiveTable, duration
from rung.sweeps.trials import Trials


def test_a_log_gets_a_line_for_each_event_and_a_table_now_and_then(make_sweep, play):
    trials = Trials(make_sweep())
    now = [0.0]
    stream = io.StringIO()
    table = LiveTable(stream, trials.total, 2, clock=lambda: now[0])
    table.show(outcomes_of(trials, ("energy_mae",)), "started")
    play(trials, 0, [0.5])
    play(trials, 2, [0.5, 0.1], state="pruned")
    now[0] = 30.0
    table.show(outcomes_of(trials, ("energy_mae",)), "trial 2 pruned")
    table.show(outcomes_of(trials, ("energy_mae",)))
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert text.splitlines()[1] == (
        "trial 2 pruned; 2/8 trials ended, 1 pruned, best 0.5 (trial 0), about 1 min 30 s left"
    )
    now[0] = 61.0
    table.show(outcomes_of(trials, ("energy_mae",)))
    lines = stream.getvalue().splitlines()[2:]
    assert lines[1].startswith("*     0  finished")
    assert "untouched model" in lines[1]
    assert "\x1b" not in stream.getvalue()


def test_durations():
    assert [duration(s) for s in (5, 65, 3605)] == ["5 s", "1 min 5 s", "1 h 0 min"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_is_drawn_over_in_place_and_not_more_often_than_an_eye_sees(make_sweep, play):
    trials = Trials(make_sweep())
    now = [0.0]
    stream = Terminal()
    table = LiveTable(stream, trials.total, 2, clock=lambda: now[0])
    play(trials, 0, [0.5])
    outcomes = outcomes_of(trials, ("energy_mae",))
    table.show(outcomes)
    assert stream.getvalue() == "", "nothing new within a second"
    table.show(outcomes, "trial 0 finished")
    first = stream.getvalue().splitlines()
    assert "\x1b" not in first[0]
    assert first[-1] == "trial 0 finished"
    now[0] = 1.5
    table.show(outcomes)
    again = stream.getvalue().splitlines()[len(first) :]
    assert again[0].startswith(f"\x1b[{len(first)}A\x1b[J"), "up to its first line, and clear"
    assert again[1:] == first[1:-1]


def test_earlier_trials_of_a_long_sweep_are_counted_only(make_sweep, play):
    trials = Trials(make_sweep(trials=30, searcher="random"))
    for number in range(25):
        play(trials, number, [0.5])
    lines = LiveTable(io.StringIO(), trials.total, 2).lines(outcomes_of(trials, ("energy_mae",)))
    assert lines[1].strip() == "(5 earlier trials are not shown)"
    assert len(lines) == 1 + 1 + 20 + 1
