"""Who is pruned, who never is, and what a second start remembers."""

import math
from functools import cache
from types import SimpleNamespace

import pytest

from rung.config.search import SchedulerConfig
from rung.orchestration.sweep_scheduler import SweepScheduler
from rung.sweeps.outcome import Epoch, Outcome
from rung.sweeps.trials import Trial

MEDIAN = SchedulerConfig(kind="median", grace=1)
CONTROLLER = SimpleNamespace(get_live_trials=list, get_trials=list)


@cache
def trial(number):
    """One object for a number, as Tune keeps one: the median rule tells trials apart by identity."""
    return TuneTrial(number)


class TuneTrial:
    def __init__(self, number):
        self.trial_id = f"id-{number}"
        self.config = {"number": number}


def add(scheduler, number, searched=True, last_epoch=4, pause_after=None):
    scheduler.expect(number, searched=searched, last_epoch=last_epoch, pause_after=pause_after)
    scheduler.on_trial_add(CONTROLLER, trial(number))


def report(scheduler, number, epochs, error):
    result = {"epoch": epochs - 1, "validation/loss": error, "validation/energy_mae": error}
    return scheduler.on_trial_result(CONTROLLER, trial(number), result)


def outcome(number, errors, state="finished"):
    curve = tuple(Epoch(at, {"loss": error, "energy_mae": error}) for at, error in enumerate(errors))
    return Outcome(Trial(number, "search", {}, state), curve, None, (min(errors),))


def test_a_baseline_is_never_stopped_and_never_stops_others():
    before = [outcome(number, [1.0, 0.2, 0.2, 0.2]) for number in (2, 3, 4)]
    scheduler = SweepScheduler(MEDIAN, ["energy_mae"], before)
    add(scheduler, 1, searched=False)
    add(scheduler, 5)
    assert report(scheduler, 1, 1, 9.0) == "CONTINUE"
    assert report(scheduler, 1, 2, 0.01) == "CONTINUE"
    assert report(scheduler, 5, 1, 0.2) == "CONTINUE"


def test_a_trial_that_did_its_last_epoch_is_left_to_wind_up():
    before = [outcome(number, [1.0, 0.2, 0.2, 0.2]) for number in (2, 3, 4)]
    scheduler = SweepScheduler(MEDIAN, ["energy_mae"], before)
    add(scheduler, 5, last_epoch=2)
    assert report(scheduler, 5, 2, 0.9) == "CONTINUE"
    add(scheduler, 6, last_epoch=3)
    assert report(scheduler, 6, 2, 0.9) == "STOP"


@pytest.mark.parametrize("searched", [True, False])
def test_a_validation_error_that_is_not_finite_ends_any_trial(searched):
    scheduler = SweepScheduler(MEDIAN, ["energy_mae"], [])
    add(scheduler, 2, searched=searched)
    assert report(scheduler, 2, 1, math.nan) == "STOP"
    assert scheduler.broken[2] == "validation/loss is nan, validation/energy_mae is nan after 1 epochs"


def test_median_stops_what_is_worse_than_the_others():
    before = [outcome(number, [1.0, 0.1, 0.1, 0.1]) for number in (2, 3, 4)]
    scheduler = SweepScheduler(SchedulerConfig(kind="median", grace=2), ["energy_mae"], before)
    add(scheduler, 5)
    assert report(scheduler, 5, 1, 0.9) == "CONTINUE"
    assert report(scheduler, 5, 2, 0.9) == "STOP"


def test_no_scheduler_stops_nobody():
    scheduler = SweepScheduler(SchedulerConfig(kind="none"), ["energy_mae"], [outcome(2, [1.0, 0.1])])
    add(scheduler, 3)
    assert report(scheduler, 3, 1, 9.0) == "CONTINUE"


def test_a_stage_ends_where_it_should_and_not_at_the_last_epoch():
    scheduler = SweepScheduler(SchedulerConfig(kind="pbt"), ["energy_mae"], [])
    add(scheduler, 1, searched=False)
    add(scheduler, 2, pause_after=2)
    assert [report(scheduler, 1, epochs, 0.1) for epochs in (1, 2)] == ["CONTINUE", "CONTINUE"]
    assert [report(scheduler, 2, epochs, 0.1) for epochs in (1, 2)] == ["CONTINUE", "STOP"]
    assert scheduler.stopped == {2}
    add(scheduler, 2, pause_after=4)
    assert [report(scheduler, 2, epochs, 0.1) for epochs in (2, 3, 4)] == ["CONTINUE"] * 3, "2 is done once more"
