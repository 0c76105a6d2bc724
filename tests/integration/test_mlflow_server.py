"""Runs, sweeps and models in the books of a real MLflow server, as teams run it: PostgreSQL, a folder or S3."""

import math
import threading
import time

import pytest
from mlflow import MlflowClient

from rung.config.tree import SweepConfig, TrainConfig
from rung.orchestration.launch import launch
from rung.orchestration.ray_tune import run_sweep
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from tests.integration.servers import MlflowServer, bucket, postgres

MODEL = {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database():
    with postgres() as address:
        yield address


def tree(dataset, storage, name, server, **sections):
    return {
        "run": {"name": name, "storage": str(storage)},
        "data": {"path": str(dataset)},
        "batch": {"structures": 8},
        "model": MODEL,
        "reference": {"mode": "scratch"},
        "optimizer": {"learning_rate": 1e-3},
        "training": {"epochs": 2, "log_every": 1},
        "launcher": {"num_workers": 2},
        "tracking": {"uri": server.uri, "experiment": "team"},
    } | sections


def runs_by_name(server):
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("team")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def assert_complete(server, run, folder):
    """Every value of the run's own file is in MLflow exactly once."""
    client = MlflowClient(tracking_uri=server.uri)
    expected = {}
    for line in read_metrics(folder / "metrics.jsonl"):
        step = line.pop("step")
        for name, value in line.items():
            if math.isfinite(value):
                expected.setdefault(name, {})[step] = value  # the end of an epoch repeats some of its last step's
    assert expected
    for name, values in expected.items():
        found = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        assert sorted(found) == sorted(values.items()), name
    assert run.info.status == "FINISHED"


@pytest.mark.ray
@pytest.mark.parametrize("artifacts", ["folder", "s3"])
def test_pretraining_fine_tuning_and_a_sweep_of_two_ray_workers_land_complete(
    artifacts, ray_cluster, database, small_dataset, tmp_path
):
    storage = tmp_path / "runs"
    with bucket() as (s3, keys):
        place, environment = (s3, keys) if artifacts == "s3" else (tmp_path / "artifacts", {})
        with MlflowServer(tmp_path, database, place, environment) as server:
            names = {kind: f"{kind}-{artifacts}" for kind in ("pretrain", "finetune", "sweep")}
            pretrained = launch(TrainConfig.model_validate(tree(small_dataset, storage, names["pretrain"], server)))
            transfer = {"model": {"init": pretrained.run}, "reference": {"mode": "refit"}}
            launch(TrainConfig.model_validate(tree(small_dataset, storage, names["finetune"], server, **transfer)))
            search = {
                "trials": 1,
                "space": {"optimizer.learning_rate": {"choice": [1e-4]}},
                "registered_model": f"team-{artifacts}",
            }
            values = tree(small_dataset, storage, names["sweep"], server, **transfer)
            values |= {"launcher": {"num_workers": 1}, "sweep": search, "training": {"epochs": 1, "log_every": 1}}
            run_sweep(SweepConfig.model_validate(values))

            runs, client = runs_by_name(server), MlflowClient(tracking_uri=server.uri)
            for kind in ("pretrain", "finetune"):
                run = runs[names[kind]]
                assert_complete(server, run, storage / names[kind])
                stored = {file.path for file in client.list_artifacts(run.info.run_id)}
                assert {"model.pth.tar", "summary.json", "config.yaml", "reference.json", "manifest.json"} <= stored
            parent = runs[names["sweep"]]
            of_parent = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"  # trials of two sweeps have equal names
            children = client.search_runs([parent.info.experiment_id], of_parent)
            assert len(children) == 3
            for child in children:
                assert_complete(server, child, storage / names["sweep"] / "trials" / child.info.run_name)
            version = client.get_model_version_by_alias(f"team-{artifacts}", "champion")
            assert version.run_id == parent.info.run_id
            assert "# team-" in version.description
            files = {file.path.rpartition("/")[2] for file in client.list_artifacts(parent.info.run_id)}
            assert {"best", "report.html"} <= files


def test_a_server_that_is_killed_in_the_middle_of_a_run_misses_and_doubles_nothing(database, small_dataset, tmp_path):
    with MlflowServer(tmp_path, database, tmp_path / "artifacts") as server:
        sections = {"launcher": {"kind": "local"}, "training": {"epochs": 60, "log_every": 1}}
        config = TrainConfig.model_validate(tree(small_dataset, tmp_path / "runs", "outage", server, **sections))
        training = threading.Thread(target=launch, args=(config,))
        training.start()
        metrics = RunFolder.of(config).path / "metrics.jsonl"

        def wait_for_step(step):
            while training.is_alive() and _last_step(metrics) < step:
                time.sleep(0.05)

        wait_for_step(10)
        server.kill()
        wait_for_step(60)
        assert training.is_alive(), "the run was over before the server was back"
        server.start()
        training.join()
        assert_complete(server, runs_by_name(server)["outage"], RunFolder.of(config).path)


def _last_step(path):
    lines = read_metrics(path)
    return lines[-1]["step"] if lines else 0
