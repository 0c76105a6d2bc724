"""Generations made of files alone: who takes over whom, and that a second start decides the same."""

import pytest

from rung.config.tree import SweepConfig
from rung.sweeps.outcome import outcome_of
from rung.sweeps.population import Population
from rung.sweeps.stages import Decision
from rung.sweeps.trials import Trials

PBT = {"kind": "pbt", "interval": 2, "quantile": 0.25}


@pytest.fixture
def population(make_sweep, play):
    """A sweep of four trials that have done a generation, worst last, each with a checkpoint that bears its number."""
    config = make_sweep(trials=4, scheduler=PBT)
    trials = Trials(config)
    play(trials, 0, [0.5])
    play(trials, 1, [0.5, 0.4])
    for number in range(2, 6):
        play(trials, number, [0.5, 0.3, 0.1 * number], state="waiting")
        folder = trials.folder / f"trial-{number:03}"
        (folder / "checkpoints/step-00000020").mkdir(parents=True)
        (folder / "checkpoints/step-00000020/state.pt").write_text(f"state {number}")
        (folder / "checkpoints/step-00000020/manifest.json").write_text("{}")
        (folder / "reference.json").write_text(f"reference {number}")
    return config, trials


def files_of(trials, number):
    folder = trials.folder / f"trial-{number:03}"
    return [(folder / name).read_text() for name in ("checkpoints/step-00000020/state.pt", "reference.json")]


def test_the_worst_goes_on_from_the_best_with_other_values(population):
    config, trials = population
    before = {number: dict(trials[number].values) for number in range(2, 6)}
    assert Population(config, trials).decide().go_on == [2, 3, 4, 5]
    assert files_of(trials, 5) == ["state 2", "reference 2"]
    assert [files_of(trials, number)[0] for number in (2, 3, 4)] == ["state 2", "state 3", "state 4"]
    assert trials[5].takeovers == [{"epochs": 2, "source": 2, "values": before[5]}]
    assert trials[5].values["model.freeze_depth"] == before[2]["model.freeze_depth"]
    assert trials[5].values["optimizer.learning_rate"] != before[2]["optimizer.learning_rate"]
    assert all(trials[number].values == before[number] for number in (2, 3, 4))
    assert {trials[number].generation for number in range(2, 6)} == {1}
    assert "optimizer.learning_rate" in trials.config_of(trials[5]).run.allow_changes
    assert not trials.config_of(trials[4]).run.allow_changes


def test_nobody_moves_while_one_still_trains(population):
    config, trials = population
    trials.update(4, state="running")
    assert Population(config, trials).decide() == Decision()
    assert trials[5].takeovers == []


def test_a_start_that_was_killed_in_between_is_gone_on_with(population, monkeypatch):
    config, trials = population
    whole = Population(config, trials)
    update = trials.update

    def killed(number, **changes):
        if number == 5:
            raise KeyboardInterrupt
        return update(number, **changes)

    monkeypatch.setattr(trials, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        whole.decide()
    again = Trials(config)
    assert [again[number].generation for number in range(2, 6)] == [1, 1, 1, 0]
    assert files_of(again, 5)[0] == "state 2", "the copy was made"
    undisturbed = dict(again[5].values)
    assert Population(config, again).decide().go_on == [2, 3, 4, 5]
    assert again[5].takeovers == [{"epochs": 2, "source": 2, "values": undisturbed}]
    assert {again[number].generation for number in range(2, 6)} == {1}


def test_failed_trials_are_out_and_a_diverged_one_is_replaced(population, play):
    config, trials = population
    play(trials, 2, [0.5, 0.3, 0.1], state="failed")
    play(trials, 4, [0.5, 0.3, float("nan")], state="waiting")
    assert Population(config, trials).decide().go_on == [3, 4, 5]
    assert trials[4].takeovers[0]["source"] == 3


def test_waiting_ends_with_the_last_generation(population, play):
    config, trials = population
    whole = Population(config, trials)
    waits = [whole.waits(outcome_of(trials, trials[number], ["energy_mae"])) for number in range(6)]
    assert waits == [False, False, True, True, True, True]
    (trials.folder / "trial-002/checkpoints/step-00000020/manifest.json").unlink()
    assert not whole.waits(outcome_of(trials, trials[2], ["energy_mae"])), "killed before its checkpoint was written"
    play(trials, 3, [0.5] + [0.3] * 9, state="running")  # all epochs done, not wound up
    assert not whole.waits(outcome_of(trials, trials[3], ["energy_mae"]))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {"model.freeze_depth": {"grid": [0, 1]}}}, "add one of optimizer.learning_rate"),
        ({"trials": 1}, "a population has two or more"),
    ],
)
def test_a_population_that_cannot_change_is_refused(make_sweep, search, message):
    with pytest.raises(ValueError, match=message):
        make_sweep(scheduler=PBT, **search)


def test_trials_of_several_ranks_are_refused(make_sweep):
    tree = make_sweep(scheduler=PBT).model_dump()
    tree["launcher"]["num_workers"] = 2
    with pytest.raises(ValueError, match="several ranks do not wait"):
        SweepConfig.model_validate(tree)
