"""Ranks that are killed, hang, are told to leave or lack memory: the run ends as if nothing had happened."""

import random
import signal
import time

import pytest

from rung.config.tree import TrainConfig
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from tests.integration.faults.ranks import (
    Fault,
    Group,
    assert_each_record_once_per_epoch,
    assert_same_weights,
    distance,
    logs,
    run_whole,
    trained_on,
)

KILLS = 20


@pytest.fixture(scope="module")
def make(small_dataset, tmp_path_factory):
    """Make the config of a small run; keyword arguments replace whole sections."""
    storage = tmp_path_factory.mktemp("runs")

    def make_config(name, **sections):
        tree = {
            "run": {"name": name, "storage": str(storage)},
            "data": {"path": str(small_dataset)},
            "batch": {"structures": 4},
            "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
            "reference": {"mode": "scratch"},
            "optimizer": {"learning_rate": 3e-3, "ema_decay": 0.9, "clip_norm": 1.0},
            "training": {"epochs": 7, "log_every": 2, "checkpoint_every": 3, "deterministic": True},
            "launcher": {"kind": "torchrun"},
            "tracking": {"kind": "off"},
        }
        return TrainConfig.model_validate(tree | sections)

    return make_config


@pytest.fixture(scope="module")
def undisturbed(make):
    """A run of two ranks that nothing happens to."""
    config = make("undisturbed")
    run_whole(config, 2)
    return config


def errors(config):
    """Everything logged but times."""
    lines = read_metrics(RunFolder.of(config).path / "metrics.jsonl")
    return [{key: value for key, value in line.items() if not key.startswith(("time/", "memory/"))} for line in lines]


def step_of(config):
    """The last step that was saved."""
    steps = RunFolder.of(config).checkpoints().steps()
    return steps[-1] if steps else 0


def test_twenty_kills_of_random_ranks_at_random_steps_change_nothing(make, undisturbed):
    config, rng = make("killed"), random.Random(5)
    last = max(trained_on(undisturbed))
    for start in range(KILLS):
        ahead = min(step_of(config) + rng.randint(1, 5), last)  # never beyond the end, however fast the machine
        group = Group(config, 2, start, Fault("kill", rng.randrange(2), ahead))
        if start % 2 == 0:  # not at a step but at a moment before it: while it starts, writes, validates
            time.sleep(rng.uniform(0.1, 1.5))
            group.processes[rng.randrange(2)].kill()
        assert -signal.SIGKILL in group.wait()
    assert Group(config, 2, KILLS).wait() == [0, 0], logs(config)
    assert_same_weights(config, undisturbed)
    assert errors(config) == errors(undisturbed)
    assert trained_on(config) == trained_on(undisturbed)
    assert_each_record_once_per_epoch(config)


def test_another_number_of_ranks_after_each_kill_changes_rounding_alone(make):
    settings = {"optimizer": {"learning_rate": 1e-3}, "training": {"epochs": 3, "checkpoint_every": 2}}
    whole, config = make("two", **settings), make("elastic", **settings)
    run_whole(whole, 2)
    for start, (world_size, step) in enumerate([(2, 4), (1, 7), (3, 12)]):
        Group(config, world_size, start, Fault("kill", world_size - 1, step)).wait()
    assert Group(config, 2, 3).wait() == [0, 0], logs(config)
    assert trained_on(config) == trained_on(whole)
    assert_each_record_once_per_epoch(config)
    assert distance(config, whole) < 1e-5


def test_a_rank_that_is_told_to_leave_takes_the_others_along_in_time(make, undisturbed):
    config = make("terminated")
    assert Group(config, 2, 0, Fault("terminate", 1, 8)).wait() == [0, 0], logs(config)
    assert step_of(config) == 8, "a checkpoint was written at the very step"
    assert "stopped after step 8 of" in logs(config)
    assert "the same command resumes" in logs(config)
    assert Group(config, 2, 1).wait() == [0, 0], logs(config)
    assert_same_weights(config, undisturbed)
    assert trained_on(config) == trained_on(undisturbed)


def test_a_rank_that_is_told_to_leave_at_the_end_of_an_epoch_leaves_its_validation_for_later(make, undisturbed):
    config = make("at-end")
    per_epoch = max(trained_on(undisturbed)) // config.training.epochs
    assert Group(config, 2, 0, Fault("terminate", 0, per_epoch)).wait() == [0, 0], logs(config)
    assert step_of(config) == per_epoch
    assert Group(config, 2, 1).wait() == [0, 0], logs(config)
    assert_same_weights(config, undisturbed)
    assert errors(config) == errors(undisturbed)


def test_a_rank_that_hangs_is_named_and_a_restart_changes_nothing(make, undisturbed):
    config = make("hung", faults={"collective_timeout": 4.0, "storage_patience": 2.0})
    codes = Group(config, 2, 0, Fault("hang", 1, 7)).wait()
    assert codes[0] == 1, logs(config)
    assert "HungRankError: rank 1 (" in logs(config)
    assert "did not come to 'sum of gradients', where rank 0 waits, within 4 s" in logs(config)
    assert Group(config, 2, 1).wait() == [0, 0], logs(config)
    assert_same_weights(config, undisturbed)


def test_a_rank_without_memory_lowers_the_budget_of_all_and_trains_on_the_same_records(make, undisturbed):
    config = make("memory")
    assert Group(config, 2, 0, Fault("out of memory", 1, 6)).wait() == [0, 0], logs(config)
    assert "rank 1 ran out of memory in step 6. All ranks go on with half" in logs(config)
    assert RunFolder.of(config).load_state("last")["progress"]["budget_factor"] == 0.5
    assert trained_on(config) == trained_on(undisturbed)


def test_a_rank_without_memory_to_evaluate_has_all_evaluate_less_at_once(make, undisturbed):
    config = make("evaluation")
    assert Group(config, 2, 0, Fault("no memory to evaluate", 1, 0)).wait() == [0, 0], logs(config)
    assert "rank 1 ran out of memory in the evaluation after step 0. All ranks go on with half" in logs(config)
    assert RunFolder.of(config).load_state("last")["progress"]["budget_factor"] == 0.5
    assert trained_on(config) == trained_on(undisturbed)


@pytest.mark.parametrize("choice", ["stop", "skip", "rewind"])
def test_numbers_that_are_none_on_one_rank_are_dealt_with_by_all(make, choice):
    config = make(f"nan-{choice}", faults={"non_finite": choice}, training={"epochs": 2, "checkpoint_every": 3})
    codes = Group(config, 2, 0, Fault("not a number", 1, 5)).wait()
    text = logs(config)
    assert "(global step 5) is not finite, and the weights were not updated" in text
    assert "rank 1: surrogate-" in text
    assert "rank 0: surrogate-" not in text
    match choice:
        case "stop":
            assert 1 in codes
            assert text.count("NonFiniteError: ") == 2, "both ranks say so"
            assert step_of(config) == 3
        case "skip":
            assert codes == [0, 0], text
            assert RunFolder.of(config).load_state("last")["progress"]["skipped"] == 1
        case "rewind":  # the same batch is not a number again and again
            assert 1 in codes
            assert "0.125 of the scheduled rate (3 of at most 3" in text
            assert "All of faults.max_rewinds are used up" in text
