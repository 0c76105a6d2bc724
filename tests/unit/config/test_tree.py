"""Every setting is declared so that help and messages can be made from it."""

import pytest

from rung.config.command import parse_overrides
from rung.config.describe import groups
from rung.config.document import TREES
from rung.config.load import ConfigError, load_config
from rung.config.section import Section
from rung.config.tree import TrainConfig


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
