"""MlflowSink against a real MLflow database."""

import json
import math
import os
import time

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from rung.config.load import to_yaml
from rung.config.tree import TrainConfig
from rung.orchestration import mlflow_run
from rung.orchestration.evaluation_log import log_evaluation
from rung.orchestration.mlflow_sink import MlflowSink, tracking_uri
from rung.training.sinks import RunDescription


def describe(storage, name="r", first_step=0, **sections):
    config = TrainConfig.model_validate(
        {"data": {"path": "/data"}, "run": {"storage": str(storage), "name": name}, **sections}
    )
    folder = storage / name
    folder.mkdir(exist_ok=True)
    return RunDescription(
        folder=folder,
        config=config,
        manifest_hash="0123abc",
        manifest={"records": 12},
        reference={"mode": "refit"},
        num_parameters=412_525,
        versions={"torch": "2.13.0"},
        first_step=first_step,
        total_steps=10,
    )


def started(description, **arguments):
    sink = MlflowSink(interval=0.02, patience=20, **arguments)
    sink.start(description)
    return sink


def client_of(storage):
    return MlflowClient(tracking_uri=f"sqlite:///{storage}/mlflow.db")


def runs_of(storage, experiment="rung"):
    client = client_of(storage)
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id]) if found else []


def history(storage, run, name):
    return [(metric.step, metric.value) for metric in client_of(storage).get_metric_history(run.info.run_id, name)]


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_run_with_params_tags_metrics_and_artifacts(storage):
    sink = started(describe(storage, optimizer={"learning_rate": 0.002}, tracking={"experiment": "study"}))
    for step in range(1, 4):
        sink.log({"train/energy_mae": 1 / step, "train/loss": math.nan, "gradient_norm": math.inf}, step)
    model = storage / "r" / "model.pth.tar"
    model.write_bytes(b"weights")
    sink.finish([model])

    (run,) = runs_of(storage, "study")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "r"
    assert run.data.params["optimizer.learning_rate"] == "0.002"
    assert run.data.params["optimizer.clip_norm"] == "null"
    assert run.data.params["loss.kind"] == "huber"
    assert run.data.params["num_parameters"] == "412525"
    assert not [name for name in run.data.params if name.startswith("tracking")]  # its address may hold a password
    assert run.data.tags["rung.run"] == str(storage / "r")
    assert run.data.tags["rung.manifest_hash"] == "0123abc"
    assert run.data.tags["rung.version.torch"] == "2.13.0"
    assert history(storage, run, "train/energy_mae") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert set(run.data.metrics) == {"train/energy_mae"}  # NaN and inf are dropped
    artifacts = storage / "mlartifacts" / "study" / run.info.run_id / "artifacts"
    assert (artifacts / "model.pth.tar").read_bytes() == b"weights"
    assert json.loads((artifacts / "manifest.json").read_text()) == {"records": 12}


def test_a_resumed_run_is_the_same_mlflow_run_without_steps_twice(storage):
    first = started(describe(storage))
    for step in (1, 2, 3):
        first.log({"train/loss": float(step)}, step)
    first.abort()
    assert [run.info.status for run in runs_of(storage)] == ["FAILED"]

    second = started(describe(storage, first_step=2, training={"log_every": 5}))  # may change between starts
    for step in (3, 4):
        second.log({"train/loss": 10.0 * step, "validation/loss": 1.0}, step)
    wait_until(lambda: runs_of(storage)[0].info.status == "RUNNING")
    second.finish([])
    (run,) = runs_of(storage)
    assert run.info.status == "FINISHED"
    assert history(storage, run, "train/loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert history(storage, run, "validation/loss") == [(3, 1.0), (4, 1.0)]


def test_a_finished_run_that_is_told_again_is_left_alone(storage):
    sink = started(describe(storage))
    sink.log({"train/loss": 1.0}, 1)
    sink.finish([])
    (before,) = runs_of(storage)
    again = started(describe(storage))
    again.log({"train/loss": 1.0}, 1)
    again.finish([])
    (after,) = runs_of(storage)
    assert after.info.end_time == before.info.end_time
    assert history(storage, after, "train/loss") == [(1, 1.0)]


def test_a_folder_that_was_deleted_gives_a_new_run(storage):
    sink = started(describe(storage))
    sink.finish([])
    (storage / "r" / mlflow_run.RUN_ID_NAME).unlink()
    started(describe(storage)).finish([])
    assert len(runs_of(storage)) == 2


def test_a_server_that_goes_before_it_answers_leaves_no_second_run(storage, monkeypatch):
    create, lost = MlflowClient.create_run, []

    def create_and_go(client, *arguments, **options):
        run = create(client, *arguments, **options)
        if not lost:
            lost.append(run.info.run_id)
            raise MlflowException("Connection reset by peer")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", create_and_go)
    sink = started(describe(storage))
    sink.log({"train/loss": 1.0}, 1)
    sink.finish([])
    (run,) = runs_of(storage)
    assert [run.info.run_id] == lost
    assert run.data.params["num_parameters"] == "412525"
    assert history(storage, run, "train/loss") == [(1, 1.0)]


def test_an_mlflow_run_that_was_deleted_is_made_again(storage):
    sink = started(describe(storage))
    sink.finish([])
    client_of(storage).delete_run(runs_of(storage)[0].info.run_id)
    sink = started(describe(storage))
    sink.log({"train/loss": 1.0}, 1)
    sink.finish([])
    (run,) = runs_of(storage)
    assert history(storage, run, "train/loss") == [(1, 1.0)]


def test_thousands_of_values_go_in_batches_and_in_order(storage):
    sink = started(describe(storage))
    for step in range(1, 801):
        sink.log({"a": float(step), "b": -float(step), "c": 0.5}, step)
    sink.finish([])
    (run,) = runs_of(storage)
    assert [value for _, value in history(storage, run, "b")] == [-float(step) for step in range(1, 801)]


def test_logging_does_not_wait_for_mlflow(storage):
    sink = started(describe(storage))
    begin = time.perf_counter()
    for step in range(1, 101):
        sink.log({"train/loss": 1.0}, step)
    assert time.perf_counter() - begin < 0.1
    sink.finish([])


def test_an_outage_delays_nothing_is_told_once_and_loses_nothing(storage, monkeypatch, caplog):
    class Outage:
        over = False

        @classmethod
        def open(cls, *arguments):
            if not cls.over:
                raise ConnectionError("connection refused\nlong traceback")
            return real.open(*arguments)

    caplog.set_level("WARNING", logger="rung")  # other tests may have asked for more
    real = mlflow_run.TrackedRun
    monkeypatch.setattr(mlflow_run, "TrackedRun", Outage)
    sink = started(describe(storage))
    for step in (1, 2):
        sink.log({"train/loss": float(step)}, step)
    wait_until(lambda: sink._failed)
    time.sleep(0.2)
    told = [record.levelname for record in caplog.records if record.name.startswith("rung")]
    assert told == ["WARNING"]
    assert "connection refused" in caplog.text
    assert "traceback" not in caplog.text
    Outage.over = True
    sink.finish([])
    (run,) = runs_of(storage)
    assert run.info.status == "FINISHED"
    assert history(storage, run, "train/loss") == [(1, 1.0), (2, 2.0)]


def test_an_mlflow_that_stays_away_is_given_up_with_a_count(storage, monkeypatch, caplog):
    class Gone:
        @classmethod
        def open(cls, *arguments):
            raise ConnectionError("connection refused")

    monkeypatch.setattr(mlflow_run, "TrackedRun", Gone)
    sink = MlflowSink(interval=0.02, patience=0.2)
    sink.start(describe(storage))
    sink.log({"train/loss": 1.0, "train/force_mae": 1.0}, 1)
    begin = time.monotonic()
    sink.finish([])
    assert time.monotonic() - begin < 5
    assert "2 values" in caplog.text
    assert "metrics.jsonl" in caplog.text


def test_neither_environment_nor_working_folder_is_touched(storage, tmp_path, monkeypatch):
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = dict(os.environ)
    sink = started(describe(storage))
    sink.log({"train/loss": 1.0}, 1)
    sink.finish([])
    assert dict(os.environ) == before
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("uri", ["./mlruns", "mlruns", "file:///tmp/mlruns", "/tmp/mlflow.db", "ftp://host"])
def test_places_that_mlflow_cannot_write_to_are_refused(uri, storage):
    with pytest.raises(ValueError, match=r"tracking\.uri.*sqlite"):
        tracking_uri(describe(storage, tracking={"uri": uri}).config)


@pytest.mark.parametrize(
    "uri", ["http://mlflow:5000", "https://x", "sqlite:////a/b.db", "postgresql+psycopg2://u:p@h/d", "databricks"]
)
def test_servers_and_databases_are_accepted(uri, storage):
    assert tracking_uri(describe(storage, tracking={"uri": uri}).config) == uri


def test_the_config_goes_before_the_environment_and_that_before_the_embedded_database(storage, monkeypatch):
    assert tracking_uri(describe(storage).config) == f"sqlite:///{storage}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking_uri(describe(storage).config) == "http://environment"
    assert tracking_uri(describe(storage, tracking={"uri": "http://config"}).config) == "http://config"


def test_a_password_is_not_logged(storage, monkeypatch, caplog):
    class Gone:
        @classmethod
        def open(cls, *arguments):
            raise ConnectionError("connection refused")

    monkeypatch.setattr(mlflow_run, "TrackedRun", Gone)
    sink = MlflowSink(interval=0.02, patience=0.1)
    with caplog.at_level("INFO"):
        sink.start(describe(storage, tracking={"uri": "postgresql://rung:hunter2@db:5432/mlflow"}))
        wait_until(lambda: sink._failed)
        sink.finish([])
    assert "hunter2" not in caplog.text
    assert "postgresql://***@db:5432/mlflow" in caplog.text


def test_a_report_is_added_to_the_run_that_it_judges(storage, monkeypatch, caplog):
    description = describe(storage)
    started(description).finish([])
    (description.folder / "config.yaml").write_text(to_yaml(description.config))
    output = description.folder / "evaluation"
    output.mkdir()
    (output / "report.html").write_text("<html>")
    assert log_evaluation(str(description.folder), output)
    (run,) = runs_of(storage)
    artifacts = storage / "mlartifacts" / "rung" / run.info.run_id / "artifacts"
    assert (artifacts / "evaluation" / "report.html").read_text() == "<html>"
    assert not log_evaluation("0.3.0", output), "which is no run"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1")
    monkeypatch.setattr(mlflow_run, "_RETRIES", 0)
    assert not log_evaluation(str(description.folder), output)
    assert "does not take the report" in caplog.text
    assert "secret" not in caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    client_of(storage).delete_run(run.info.run_id)
    assert not log_evaluation(str(description.folder), output)
