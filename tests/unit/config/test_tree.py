"""Every setting is declared so that help and messages can be made from it."""

import pytest

from rung.config.describe import groups
from rung.config.section import Section
from rung.config.tree import EvaluateConfig, ExportConfig, FinetuneConfig, PrepareConfig, TrainConfig

TREES = [PrepareConfig, TrainConfig, FinetuneConfig, EvaluateConfig, ExportConfig]


@pytest.mark.parametrize("tree", TREES)
def test_every_setting_says_what_it_means(tree):
    for group in groups(tree):
        assert group.meaning or not group.key
        for setting in group.settings:
            assert setting.meaning, setting.key
            assert "value" not in setting.allowed.split(), f"{setting.key}: {setting.allowed}"


@pytest.mark.parametrize("tree", TREES)
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
