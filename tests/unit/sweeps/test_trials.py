"""The books of a sweep: the same trials at every start."""

import pytest

from rung.sweeps.draw import random_point, tpe_point
from rung.sweeps.trials import SweepFolder, Trials


def test_the_first_two_trials_are_the_untouched_model_and_the_recipe(make_sweep):
    trials = Trials(make_sweep())
    untouched, recipe = (trials.config_of(trials.propose(number, [])) for number in (0, 1))
    assert untouched.training.epochs == 0
    assert (untouched.reference.mode, untouched.model.init) == ("refit", "0.3.0")
    assert (recipe.training.epochs, recipe.optimizer.learning_rate, recipe.loss.energy) == (9, 1e-3, 3)
    assert recipe.run.name == "trial-001"
    assert trials.total == 8


def test_a_second_start_finds_the_same_trials_and_leaves_out_the_ended_ones(make_sweep, play):
    config = make_sweep()
    trials = Trials(config)
    play(trials, 0, [0.5])
    play(trials, 1, [0.5, 0.2], state="pruned")
    began = trials.propose(4, [])
    again = Trials(config)
    assert again.to_do() == [4, 2, 3, 5, 6, 7]  # the one begun comes first
    assert again.propose(4, []) == began
    assert again.propose(2, []).values == trials.propose(2, []).values


def test_more_trials_can_be_asked_for_later_but_not_another_search(make_sweep):
    SweepFolder.opened(make_sweep())
    SweepFolder.opened(make_sweep(trials=20))
    with pytest.raises(ValueError, match=r"other sweep\.searcher"):
        SweepFolder.opened(make_sweep(searcher="tpe"))
    with pytest.raises(ValueError, match=r"other sweep\.space"):
        SweepFolder.opened(make_sweep(space={"loss.energy": {"choice": [1]}}))


def test_tpe_goes_by_what_ended_and_keeps_away_from_what_runs(make_sweep):
    config = make_sweep(searcher="tpe", trials=40)
    trials = Trials(config)
    taught = [(random_point(config.dimensions, 0, number), [float(number)]) for number in range(20)]
    first = trials.propose(20, taught)
    second = trials.propose(21, taught)
    assert first.values == tpe_point(config.dimensions, 0, 18, taught, [])
    assert second.values == tpe_point(config.dimensions, 0, 19, taught, [first.values])
    assert Trials(config).propose(20, []) == first, "what was drawn stays"


def test_a_folder_of_a_run_is_refused(make_sweep, tmp_path):
    (tmp_path / "sweep" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds a run: give the sweep a run\.name"):
        SweepFolder.opened(make_sweep())


def test_points_that_are_no_configuration_are_found_before_the_start(make_sweep):
    space = {"loss.energy": {"choice": [0, 1]}, "loss.force": {"choice": [0]}, "loss.stress": {"choice": [0]}}
    config = make_sweep(space=space | {"loss.magmom": {"choice": [0]}})
    with pytest.raises(ValueError, match="every weight is 0"):
        Trials(config).check_draws()


def test_a_damaged_book_is_named(make_sweep):
    config = make_sweep()
    trials = Trials(config)
    trials.propose(0, [])
    (trials.folder / "trial-000" / "trial.json").write_text("{")
    with pytest.raises(ValueError, match=r"trial-000/trial\.json is damaged"):
        Trials(config)
