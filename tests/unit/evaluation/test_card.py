"""The model card of a run."""

from pathlib import Path

import pytest

from rung.evaluation.card import RunRecord, model_card
from rung.training.context import LocalContext
from rung.training.trainer import train


@pytest.fixture
def run(make_config):
    return train(make_config(training={"epochs": 1}), LocalContext("cpu")).run


def test_a_card_says_what_a_stranger_has_to_know(run):
    physics = [{"name": "forces", "holds": True}, {"name": "stress", "holds": True}]
    text = model_card("my-potential", RunRecord.read(Path(run)), physics, "CC BY 4.0")
    assert text.startswith("# my-potential\n")
    for words in (
        "meV/atom",
        "meV/Å",
        "untouched start",
        "CC BY 4.0",
        "huber, weights: energy 1",
        "**mode**: scratch",
        "elements without a training record",
        "nothing beyond 6 Å",
        "2 of 2 laws hold",
        "never mix them",
    ):
        assert words in text, words


def test_what_is_not_known_is_said_so(run):
    text = model_card("m", RunRecord.read(Path(run)), [], None)
    assert "not stated" in text
    assert "not tried" in text


class Stopped(LocalContext):
    def should_stop(self, step):
        return step >= 2


def test_a_run_that_is_not_complete_has_no_card(make_config, tmp_path):
    stopped = train(make_config(training={"epochs": 2}), Stopped("cpu"))
    assert (Path(stopped.run) / "summary.json").exists()
    for folder in (tmp_path, Path(stopped.run)):
        with pytest.raises(ValueError, match="holds no complete run"):
            RunRecord.read(folder)
