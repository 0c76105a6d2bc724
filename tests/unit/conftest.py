"""A small data set that the tests of the loop share."""

import pytest

from data_prep.convert import prepare
from rung.config.tree import PrepareConfig, TrainConfig

SMALL_MODEL = {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 3}


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """Forty-eight surrogate structures."""
    folder = tmp_path_factory.mktemp("data") / "gga"
    source = {"kind": "surrogate", "functional": "GGA", "num_structures": 48}
    split = {"validation": 0.2, "test": 0.2}
    prepare(PrepareConfig.model_validate({"output": str(folder), "source": source, "split": split}))
    return folder


@pytest.fixture
def make_config(small_dataset, tmp_path):
    """Make the config of a small local run; keyword arguments replace whole sections."""

    def make(name="run", **sections):
        tree = {
            "run": {"name": name, "storage": str(tmp_path / "runs")},
            "data": {"path": str(small_dataset)},
            "batch": {"structures": 6},
            "model": SMALL_MODEL,
            "reference": {"mode": "scratch"},
            "optimizer": {"learning_rate": 3e-3},
            "training": {"epochs": 3, "log_every": 2},
            "launcher": {"kind": "local"},
            "tracking": {"kind": "off"},
        }
        return TrainConfig.model_validate(tree | sections)

    return make
