"""Storage that refuses and is full, a tracker that is down: the run ends as if nothing had happened."""

import pytest

from rung.config.tree import TrainConfig
from rung.data.dataset import ShardDataset
from tests.integration.faults.outages import MAY_MOUNT, go_through_outages

BATCH = 2


@pytest.mark.slow
@pytest.mark.skipif(not MAY_MOUNT, reason="only root may mount the file system that is filled")
def test_outages_cost_no_step_and_no_value(small_dataset, tmp_path, mlflow_template, caplog):
    epochs = 25
    steps = epochs * -(-len(ShardDataset(small_dataset).select("train")) // BATCH)

    def make_config(name, storage, address):
        tree = {
            "run": {"name": name, "storage": str(storage)},
            "data": {"path": str(small_dataset)},
            "batch": {"structures": BATCH},
            "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
            "reference": {"mode": "scratch"},
            "training": {"epochs": epochs, "checkpoint_every": 5, "log_every": 5},
            "launcher": {"kind": "local"},
            "tracking": {"kind": "off"} if address is None else {"uri": address},
        }
        return TrainConfig.model_validate(tree)

    (tmp_path / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    figures = go_through_outages(make_config, steps, tmp_path, seconds=2.0)
    assert figures["steps_in_outages"] > 10, "training goes on"
    assert figures["values"] > steps / 5
    assert (figures["values_missing"], figures["values_twice"]) == (0, 0)
    assert figures["finished"]
    assert figures["weights_equal"]
    for text in ("Read-only file system", "No space left on device", "s of refusals"):
        assert text in caplog.text
