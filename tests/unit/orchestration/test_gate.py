"""The physics gate in front of training: what is tried, when, and what a refusal stops."""

import json
import shutil

import pytest

from rung.config.tree import SweepConfig
from rung.evaluation.physics import PhysicsError
from rung.orchestration import gate, ray_tune
from rung.orchestration.launch import launch
from rung.training.run import RunFolder


@pytest.fixture
def real(small_dataset, tmp_path):
    """A set that says of itself that it is DFT."""
    folder = tmp_path / "real"
    shutil.copytree(small_dataset, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["source"]["is_dft"] = True
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def broken(monkeypatch):
    def refuse(model, purpose):
        raise PhysicsError(f"{purpose} is refused")

    monkeypatch.setattr(gate, "require_physics", refuse)


def sweep_of(config):
    tree = config.model_dump(mode="json", exclude={"replay", "transfer"}) | {"launcher": {"kind": "ray"}}
    tree |= {"model": {"init": "0.3.0"}, "reference": {"mode": "refit"}}
    return SweepConfig.model_validate(tree | {"sweep": {"space": {"loss.energy": {"choice": [1, 2]}}}})


def test_a_run_on_real_data_keeps_what_its_weights_obey(make_config, real):
    config = make_config(data={"path": str(real)}, training={"epochs": 1})
    launch(config)
    laws = json.loads((RunFolder.of(config).path / gate.PHYSICS_NAME).read_text())
    assert len(laws) == 7
    assert all(law["holds"] for law in laws)


@pytest.mark.usefixtures("broken")
def test_nothing_is_trained_from_weights_that_break_a_law(make_config, real):
    config = make_config(data={"path": str(real)})
    with pytest.raises(PhysicsError, match="training is refused"):
        launch(config)
    assert not RunFolder.of(config).checkpoints().steps()


@pytest.mark.usefixtures("broken")
def test_a_run_that_has_begun_and_one_on_surrogate_data_are_not_tried(make_config, real):
    config = make_config(training={"epochs": 1})
    launch(config)
    gate.check_start(config.model_copy(update={"data": config.data.model_copy(update={"path": str(real)})}))


@pytest.mark.usefixtures("broken")
def test_a_sweep_is_tried_once_before_its_trials(make_config, real, monkeypatch):
    config = sweep_of(make_config("sweep", data={"path": str(real)}))
    with pytest.raises(PhysicsError, match="training is refused"):
        ray_tune.run_sweep(config)
    begun = []
    monkeypatch.setattr(ray_tune, "_run_trials", lambda *_: begun.append(1))
    monkeypatch.setattr(ray_tune, "_finish", lambda *_: "summary.json")
    RunFolder.of(config).write(gate.PHYSICS_NAME, "[]")
    assert ray_tune.run_sweep(config) == "summary.json"
    assert begun == [1]
