"""Search spaces: what is read, and what is refused."""

import pytest

from rung.config.space import parse_space
from rung.config.tree import FinetuneConfig, SweepConfig


def parse(**space):
    return parse_space({key.replace("__", "."): value for key, value in space.items()}, FinetuneConfig)


def test_a_space_with_every_kind():
    rate, depth, weight, decay = parse(
        optimizer__learning_rate={"log_uniform": [1e-5, 1e-2]},
        model__freeze_depth={"grid": [0, 1]},
        loss__energy={"uniform": [1, 5]},
        optimizer__ema_decay={"choice": [None, 0.99], "when": {"model.freeze_depth": [0]}},
    )
    assert (rate.kind, rate.values, rate.whole) == ("log_uniform", (1e-5, 1e-2), False)
    assert depth.values == (0, 1)
    assert not depth.is_range
    assert not weight.whole  # 1 and 5 are written as whole numbers, but the key is a number
    assert decay.applies({"model.freeze_depth": 0})
    assert not decay.applies({"model.freeze_depth": 1})


def test_a_range_of_a_whole_number_key_is_whole():
    assert parse(batch__structures={"log_uniform": [8, 64]})[0].whole


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optimizer.learning_rat": {"choice": [1]}}, "unknown key; did you mean optimizer.learning_rate?"),
        (
            {"optimizer.lr": {"choice": [1]}},
            "sweep.space.optimizer.lr: unknown key; did you mean optimizer",
        ),
        ({"learning_rate": {"choice": [1e-3]}}, "did you mean optimizer.learning_rate"),
        ({"run.name": {"choice": ["a"]}}, "leave it out of the space"),
        ({"launcher.num_workers": {"choice": [1]}}, "leave it out of the space"),
        ({"optimizer.learning_rate": [1e-3]}, "give one of log_uniform, uniform, choice, grid"),
        ({"optimizer.learning_rate": {"choise": [1e-3]}}, "give one of log_uniform"),
        ({"optimizer.learning_rate": {"log_uniform": [0, 1e-3]}}, "must be above 0"),
        ({"optimizer.learning_rate": {"uniform": [1e-2, 1e-3]}}, "give [lowest, highest]"),
        ({"optimizer.learning_rate": {"uniform": [1e-3, 2]}}, "must be a number > 0 and <= 1"),
        ({"optimizer.learning_rate": {"choice": []}}, "give a list of values"),
        ({"loss.energy": {"choice": [1], "when": {"model.freeze_depth": 1}}}, "give {other key: [values]}"),
        ({"model.freeze_depth": {"choice": [0, 1.5]}}, "must be a whole number >= 0"),
        ({"batch.structures": {"uniform": [1.5, 8]}}, "must be a whole number"),
        ({"reference.mode": {"choice": ["refitt"]}}, "holds refitt; mode must be one of"),
        ({"loss.energy": {"choice": [1], "when": {"loss.force": [1]}}}, "not a key of the space"),
        (
            {
                "model.freeze_depth": {"choice": [0, 1]},
                "loss.energy": {"choice": [1], "when": {"model.freeze_depth": [3]}},
            },
            "it never is",
        ),
        (
            {"loss.force": {"uniform": [0, 1]}, "loss.energy": {"choice": [1], "when": {"loss.force": [1]}}},
            "a condition needs a choice or a grid",
        ),
    ],
)
def test_refused(space, message):
    with pytest.raises(ValueError, match=r"sweep\.space\.") as refused:
        parse_space(space, FinetuneConfig)
    assert message in str(refused.value)


def test_every_problem_is_named_at_once():
    with pytest.raises(ValueError, match="learning_rate") as refused:
        parse(optimizer__learning_rate={"uniform": [1e-3, 2]}, nonsense={"choice": [1]})
    assert "space.nonsense" in str(refused.value)


def test_a_sweep_is_checked_when_its_config_is_read():
    tree = {"data": {"path": "d"}, "model": {"init": "0.3.0"}}
    with pytest.raises(ValueError, match="holds 2; learning_rate must be"):
        SweepConfig.model_validate(tree | {"sweep": {"space": {"optimizer.learning_rate": {"choice": [2]}}}})
    space = {"optimizer.learning_rate": {"choice": [1e-3]}}
    with pytest.raises(ValueError, match="there is no probe"):
        SweepConfig.model_validate(tree | {"sweep": {"space": space, "objectives": ["probe_force_mae"]}})
    with pytest.raises(ValueError, match=r"set launcher\.kind to ray"):
        SweepConfig.model_validate(tree | {"sweep": {"space": space}, "launcher": {"kind": "local"}})
