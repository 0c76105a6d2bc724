"""Rungs made of files alone: who goes on, who is dropped when, and that a second start decides the same."""

import pytest

from rung.sweeps.outcome import lessons, outcome_of, outcomes_of
from rung.sweeps.rungs import Rungs
from rung.sweeps.stages import Decision
from rung.sweeps.trials import Trials

ASHA = {"kind": "asha", "grace": 1, "reduction": 3}


@pytest.fixture
def sweep(make_sweep, play):
    """Six trials at the first of two rungs, the best of them trial 5, the next trial 3; and the two baselines."""
    config = make_sweep(trials=6, scheduler=ASHA)
    trials = Trials(config)
    play(trials, 0, [0.5])
    play(trials, 1, [0.5, 0.01])
    for number, error in zip(range(2, 8), (0.4, 0.2, 0.6, 0.1, 0.3, 0.5), strict=True):
        play(trials, number, [0.5, error], state="waiting")
    return config, trials


@pytest.mark.parametrize(
    ("grace", "reduction", "epochs"),
    [(1, 3, [1, 3]), (1, 2, [1, 2, 4, 8]), (2, 4, [2, 8]), (9, 3, []), (1, 1.2, [1, 2, 3, 4, 5, 6, 7, 8]), (3, 3, [3])],
)
def test_rungs_lie_between_the_first_and_the_last_epoch(make_sweep, grace, reduction, epochs):
    config = make_sweep(scheduler={"kind": "asha", "grace": grace, "reduction": reduction})
    assert Rungs(config, Trials(config)).epochs == epochs


def test_the_best_third_goes_on_best_first(sweep):
    config, trials = sweep
    rungs = Rungs(config, trials)
    assert rungs.decide() == Decision([5], [2, 4, 6, 7])
    assert (trials[5].generation, trials[5].state) == (1, "running")
    for number in (2, 4, 6, 7):
        trials.update(number, state="pruned")
    assert rungs.decide() == Decision([3], [])
    assert rungs.pause_after(trials[3]) == 3


def test_nobody_is_dropped_while_another_may_still_come(sweep, play):
    config, trials = sweep
    play(trials, 7, [0.5], state="running")
    rungs = Rungs(config, trials)
    assert rungs.decide() == Decision([5], []), "a third of five is one"
    assert rungs.decide() == Decision(), "and it has gone"
    play(trials, 7, [0.5, 0.15], state="waiting")
    assert rungs.decide() == Decision([7], [2, 3, 4, 6])


def test_the_last_one_runs_to_its_end(sweep, play):
    config, trials = sweep
    for number in (2, 4, 6, 7):
        trials.update(number, state="pruned")
    play(trials, 5, [0.5, 0.1, 0.1, 0.3], state="waiting", generation=1)
    play(trials, 3, [0.5, 0.2, 0.2, 0.2], state="running", generation=1)
    rungs = Rungs(config, trials)
    assert rungs.decide() == Decision(), "a third of two is none, and the other still trains"
    trials.update(3, state="waiting")
    assert rungs.decide() == Decision([3], [5]), "somebody must go on"
    assert rungs.pause_after(trials[3]) is None
    assert not rungs.waits(outcome_of(trials, trials[3], ["energy_mae"]))


def test_the_higher_rung_comes_first(sweep, play):
    config, trials = sweep
    for number in (2, 4, 5):
        play(trials, number, [0.5, 0.1, 0.1, 0.1 * number], state="waiting", generation=1)
    assert Rungs(config, trials).decide().go_on == [2]


def test_failed_trials_do_not_count(sweep):
    config, trials = sweep
    trials.update(5, state="failed")
    assert Rungs(config, trials).decide() == Decision([3], [2, 4, 6, 7])


def test_an_error_that_is_not_finite_is_the_worst(sweep, play):
    config, trials = sweep
    play(trials, 5, [0.5, float("nan")], state="waiting")
    assert Rungs(config, trials).decide() == Decision([3], [2, 4, 5, 7])


def test_a_second_start_sees_who_waits_and_decides_the_same(sweep):
    config, _ = sweep
    again = Trials(config)
    waits = [number for number in range(8) if Rungs(config, again).waits(outcome_of(again, again[number], []))]
    assert waits == [2, 3, 4, 5, 6, 7]
    assert Rungs(config, again).decide() == Decision([5], [2, 4, 6, 7])
    once_more = Trials(config)
    assert not Rungs(config, once_more).waits(outcome_of(once_more, once_more[5], [])), "it was let through"


def test_a_searcher_learns_from_those_that_wait(sweep):
    _, trials = sweep
    for number in (3, 4, 6, 7):
        trials.update(number, state="running")
    taught = lessons(outcomes_of(trials, ["energy_mae"]))
    assert taught == [(dict(trials[2].values), (0.4,)), (dict(trials[5].values), (0.1,))]
