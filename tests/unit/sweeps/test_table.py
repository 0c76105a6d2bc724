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
