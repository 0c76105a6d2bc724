"""Real Ray Train groups of two workers. A fit costs 11-28 s, so each test looks at many things."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import ray
import torch
from mlflow import MlflowClient

from rung.config.load import ConfigError
from rung.config.tree import TrainConfig
from rung.orchestration.launch import launch
from rung.orchestration.ray_train import run_on_ray
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from rung.training.trainer import train
from tests.integration.files import files_that_hold

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

TREE = {
    "batch": {"structures": 6},
    "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
    "reference": {"mode": "scratch"},
    "optimizer": {"learning_rate": 3e-3, "ema_decay": 0.9},
    "training": {"epochs": 3, "log_every": 1},
}


def config_of(name, storage, small_dataset, **sections):
    launcher = {"kind": "ray", "num_workers": 2, "max_failures": 2, "start_timeout": 180}
    tree = {
        "run": {"name": name, "storage": str(storage)},
        "data": {"path": str(small_dataset)},
        "launcher": launcher,
        "tracking": {"kind": "off"},
    }
    return TrainConfig.model_validate(TREE | tree | sections)


def weights_of(config):
    return RunFolder.of(config).load_state("last")["model"]["state_dict"]


@pytest.fixture(scope="module")
def undisturbed(small_dataset, tmp_path_factory, mlflow_template, ray_cluster):
    """A run of two ranks, tracked by MLflow, that nothing happens to."""
    storage = tmp_path_factory.mktemp("whole")
    shutil.copy(mlflow_template, storage / "mlflow.db")
    config = config_of("whole", storage, small_dataset, tracking={"kind": "mlflow"})
    return config, launch(config)


def test_two_ranks_train_and_mlflow_has_it_all(undisturbed):
    config, summary = undisturbed
    folder = RunFolder.of(config).path
    lines = read_metrics(folder / "metrics.jsonl")
    assert summary.completed
    assert summary.best["test"].keys() >= {"energy_mae", "force_mae"}
    assert lines[-1]["step"] == summary.steps

    client = MlflowClient(tracking_uri=f"sqlite:///{config.run.storage}/mlflow.db")
    run = client.get_run((folder / "mlflow_run_id").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.params["launcher.num_workers"] == "2"
    losses = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    assert losses == [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert artifacts >= {"model.pth.tar", "summary.json", "config.yaml", "reference.json", "manifest.json"}
    assert not list(folder.glob(".started-*"))


def test_two_ranks_of_ray_learn_what_one_local_process_learns(undisturbed, small_dataset, tmp_path):
    config, _ = undisturbed
    alone = config_of("alone", tmp_path, small_dataset, launcher={"kind": "local"})
    launch(alone)
    for name, weights in weights_of(alone).items():
        torch.testing.assert_close(weights_of(config)[name], weights, rtol=1e-3, atol=1e-4, msg=name)


def test_a_complete_run_answers_at_once_and_stays_as_it_is(undisturbed):
    config, summary = undisturbed
    model = Path(summary.model)
    before = model.stat().st_mtime_ns
    assert launch(config) == summary
    assert model.stat().st_mtime_ns == before


class KilledOnce:
    """A context whose rank 1 is killed as by the kernel, once, before a global step."""

    def __init__(self, context, mark, step):
        self._context, self._mark, self._step = context, mark, step

    def __getattr__(self, name):
        return getattr(self._context, name)

    def should_stop(self, step):
        if step == self._step and self._context.rank == 1 and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def train_with_a_kill(config, context, sinks):
    mark = RunFolder.of(config).path / "killed"
    return train(config, KilledOnce(context, mark, step=5), sinks)


def test_a_killed_worker_changes_nothing(undisturbed, small_dataset, tmp_path):
    """And tells nobody the password in its config."""
    config, summary = undisturbed
    tracking = {"kind": "off", "uri": "http://rung:hunter2-hunter2@mlflow:5000"}
    killed = config_of("killed", tmp_path, small_dataset, tracking=tracking)
    found = run_on_ray(killed, loop=train_with_a_kill)
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())  # with the logs of all processes
    assert not list(files_that_hold(b"hunter2", RunFolder.of(killed).path, session))
    assert list(files_that_hold(b"epochs", RunFolder.of(killed).path)), "there was something to look at"
    assert (RunFolder.of(killed).path / "killed").exists()
    assert found.completed
    assert found.best == summary.best
    assert found.zero_step == summary.zero_step
    expected = weights_of(config)
    for name, weights in weights_of(killed).items():
        torch.testing.assert_close(weights, expected[name], rtol=0, atol=0, msg=name)
    steps = [line["step"] for line in read_metrics(RunFolder.of(killed).path / "metrics.jsonl") if "train/loss" in line]
    assert steps == list(range(1, summary.steps + 1))


def refuse_on_rank_one(config, context, sinks):
    attempts = RunFolder.of(config).path / f"attempts-{context.rank}"
    with attempts.open("a") as file:
        file.write("attempt\n")
    if context.rank == 1:
        raise ConfigError("lower batch.structures")
    torch.distributed.barrier()  # the other rank waits, as in a real collective


def test_a_users_error_on_one_rank_ends_the_run_at_once_with_its_message(small_dataset, tmp_path):
    config = config_of("refused", tmp_path, small_dataset)
    with pytest.raises(ValueError, match=r"^lower batch\.structures$"):
        run_on_ray(config, loop=refuse_on_rank_one)
    assert (RunFolder.of(config).path / "attempts-1").read_text() == "attempt\n"
