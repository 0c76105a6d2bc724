"""Which trial is best, and what a searcher is told."""

import math

import pytest

from rung.sweeps.outcome import best_of, lessons, outcomes_of, ranked, score, verdict
from rung.sweeps.trials import Trials

ENERGY = ("energy_mae",)


def test_score_is_a_geometric_mean():
    assert score([0.1, 0.4]) == pytest.approx(0.2)
    assert score([0.1, math.nan]) == score(None) == math.inf
    assert score([0.0, 1.0]) == 0


def test_order(make_sweep, play):
    trials = Trials(make_sweep())
    play(trials, 0, [0.5])
    play(trials, 1, [0.5, 0.3, 0.2])
    play(trials, 2, [0.5, 0.05], state="pruned")
    play(trials, 3, [0.5, 0.4, 0.4], state="pruned")
    play(trials, 4, [0.5, 0.1, 0.3])
    play(trials, 5, [], state="failed", error="boom")
    outcomes = outcomes_of(trials, ENERGY)
    assert [one.trial.number for one in ranked(outcomes)] == [4, 1, 0, 3, 2, 5]
    assert best_of(outcomes).trial.number == 4
    assert best_of(outcomes).objectives == (0.1,)  # of the best checkpoint, not of the last
    assert outcomes[3].epochs == 2
    assert "Trial 4 is best" in verdict(outcomes)
    assert "80.0 % below the untouched model" in verdict(outcomes)
    assert "50.0 % below the paper's recipe" in verdict(outcomes)


def test_a_sweep_that_cannot_beat_its_baselines_says_so(make_sweep, play):
    trials = Trials(make_sweep())
    play(trials, 0, [0.1])
    play(trials, 1, [0.1, 0.3])
    play(trials, 2, [0.1, 0.2])
    assert verdict(outcomes_of(trials, ENERGY)).startswith("No searched trial beat the untouched model")


def test_a_failed_baseline_is_named(make_sweep, play):
    trials = Trials(make_sweep())
    play(trials, 0, [], state="failed", error="boom")
    play(trials, 2, [0.1, 0.05])
    assert "the untouched model (trial 0) and the paper's recipe (trial 1) gave no result" in verdict(
        outcomes_of(trials, ENERGY)
    )


def test_a_searcher_learns_from_searched_trials_and_failures_are_the_worst(make_sweep, play):
    trials = Trials(make_sweep())
    play(trials, 0, [0.01])
    play(trials, 2, [0.5, 0.1])
    play(trials, 3, [0.5, 0.4], state="pruned")
    play(trials, 4, [0.5, 0.05], state="failed", error="NaN")
    trials.propose(5, [])
    found = lessons(outcomes_of(trials, ("energy_mae", "force_mae")))
    assert [values for _, values in found] == [(0.1, 0.2), (0.4, 0.8), (0.4, 0.8)]
    assert found[0][0] == dict(trials[2].values)
