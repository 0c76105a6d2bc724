"""Every setting is declared so that help and messages can be made from it."""

import re

import pytest

from rung.config.command import parse_overrides
from rung.config.describe import groups
from rung.config.document import TREES
from rung.config.load import ConfigError, load_config
from rung.config.section import Section
from rung.config.studies import ScalingStudyConfig, TransferStudyConfig
from rung.config.tree import PrepareConfig, SweepConfig, TrainConfig


@pytest.mark.parametrize("tree", TREES.values(), ids=list(TREES))
def test_every_setting_says_what_it_means(tree):
    for group in groups(tree):
        assert group.meaning or not group.key
        for setting in group.settings:
            assert setting.meaning, setting.key
            assert "value" not in setting.allowed.split(), f"{setting.key}: {setting.allowed}"


@pytest.mark.parametrize("tree", [tree for job, tree in TREES.items() if job != "predict"])
def test_default_sections_are_made_of_default_settings(tree):
    """A section given in part takes the rest from its class: a special default of its owner would be lost, and help
    would not show it."""
    for field in tree.model_fields.values():
        if isinstance(field.default, Section):
            assert field.default == type(field.default)()


def test_sections_are_frozen_and_typed():
    config = TrainConfig(data={"path": "x"})
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 1


@pytest.mark.parametrize(("written", "fewest", "most"), [("4", 4, 4), ("[2, 8]", 2, 8), ("[3, 3]", 3, 3)])
def test_number_of_workers_is_one_or_a_range(written, fewest, most):
    overrides = {"data.path": "x"} | parse_overrides(TrainConfig, {"launcher.num_workers": written})
    launcher = load_config(TrainConfig, None, overrides, overrides_from="command line").launcher
    assert (launcher.min_workers, launcher.max_workers) == (fewest, most)


@pytest.mark.parametrize("written", ["0", "[0, 2]", "[4, 2]", "two", "[1, 2, 3]", "1.5"])
def test_other_numbers_of_workers_are_refused_in_one_line(written):
    overrides = {"data.path": "x"} | parse_overrides(TrainConfig, {"launcher.num_workers": written})
    with pytest.raises(ConfigError, match=r"^launcher.*num_workers") as caught:
        load_config(TrainConfig, None, overrides, overrides_from="command line")
    assert "\n" not in str(caught.value)


def test_ranks_must_wait_longer_than_storage():
    with pytest.raises(ValueError, match="storage_patience is 1800 s and collective_timeout 1800 s"):
        TrainConfig.model_validate({"data": {"path": "x"}, "faults": {"storage_patience": 1800.0}})


TUNED = {"data": {"path": "x"}, "model": {"init": "0.3.0"}}
SPACE = {"optimizer.learning_rate": {"log_uniform": [1e-5, 1e-2]}}


def prepare_from(**source):
    return PrepareConfig, {"output": "out", "source": source}


def study(config=TransferStudyConfig, base=None, **keys):
    return config, {"output": "out", "base": TUNED | (base or {})} | keys


def sweep(search=None, **sections):
    return SweepConfig, TUNED | {"sweep": {"space": SPACE} | (search or {})} | sections


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (prepare_from(kind="surrogate", functional="GGA+U"), "the surrogate has 'GGA' and 'r2SCAN'"),
        (prepare_from(kind="mptrj"), "source.kind 'mptrj' reads a file: set source.path"),
        (prepare_from(kind="mp_api"), "set either source.path, or source.mp.material_ids or source.mp.chemical"),
        (prepare_from(kind="mptrj", path="x", energy="free"), "source.energy is 'free'; source.kind 'mptrj' has"),
        (prepare_from(kind="mptrj", path="x", materials="x"), "source.materials means nothing to source.kind 'mptrj'"),
        ((TrainConfig, TUNED | {"reference": {"mode": "scratch"}}), "set model.init to none, or reference.mode to"),
        ((TrainConfig, TUNED | {"reference": {"mode": "isolated"}}), "set reference.isolated.path"),
        (
            (TrainConfig, TUNED | {"reference": {"mode": "isolated", "isolated": {"path": "x"}}}),
            "set reference.isolated_pretrained.path",
        ),
        ((TrainConfig, TUNED | {"model": {"num_angular": 30}}), "num_angular is 30; a Fourier basis has 1 + 2n"),
        ((TrainConfig, TUNED | {"training": {"profile": [5, 2]}}), "profile is [5, 2]; give the first and last step"),
        ((TrainConfig, TUNED | {"training": {"profile": [0, 2]}}), "profile is [0, 2]; give the first and last step"),
        (study(base={"model": {"init": "none"}, "reference": {"mode": "refit"}}), "base.model.init is 'none'"),
        (study(base={"launcher": {"kind": "torchrun"}}), "base.launcher.kind is 'torchrun', which starts one run"),
        (study(seeds=[0, 1, 0]), "seeds [0, 1, 0] repeat one"),
        (study(ScalingStudyConfig, shares=[0.5, 0.1]), "shares are [0.5, 0.1]; they rise"),
        (study(ScalingStudyConfig, shares=[0.0, 0.1]), "shares are [0.0, 0.1]; they rise"),
        (study(ScalingStudyConfig, shares=[0.5, 1.5]), "shares are [0.5, 1.5]; they rise"),
        (sweep({"objectives": ["energy_mae", "energy_mae"]}), "names one twice"),
        (sweep({"objectives": ["energy_mae", "probe_force_mae"]}), "set sweep.probe to prepared GGA data"),
        (sweep({"scheduler": {"kind": "pbt"}, "trials": 1}), "trials is 1: a population has two or more"),
        (sweep(launcher={"kind": "local"}), "set launcher.kind to ray"),
        (sweep(launcher={"kind": "ray", "num_workers": [1, 2]}), "give a whole number"),
        (
            sweep({"scheduler": {"kind": "pbt"}}, launcher={"kind": "ray", "num_workers": 2}),
            "set it to 1, or choose another scheduler",
        ),
    ],
)
def test_settings_that_contradict_each_other_say_which_to_change(asked, message):
    config, tree = asked
    with pytest.raises(ValueError, match=re.escape(message)):
        config.model_validate(tree)
