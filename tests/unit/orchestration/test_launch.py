"""The door to a run, with launchers that need no cluster."""

import logging
import os
import subprocess
import sys

import pytest

from rung.orchestration.launch import finished_summary, launch, sinks_of
from rung.orchestration.mlflow_sink import MlflowSink
from rung.orchestration.settled_sink import SettledSink
from rung.training.run import RunFolder
from rung.training.sinks import ProgressSink, read_metrics
from rung.training.wording import in_words


def test_sinks_are_the_bar_and_the_tracker_of_the_config(make_config):
    assert [type(sink) for sink in sinks_of(make_config())] == [ProgressSink]
    tracked = make_config(tracking={"kind": "mlflow"})
    assert [type(sink) for sink in sinks_of(tracked)] == [ProgressSink, MlflowSink]
    rewinding = make_config(tracking={"kind": "mlflow"}, faults={"non_finite": "rewind"})
    assert [type(sink) for sink in sinks_of(rewinding)] == [ProgressSink, SettledSink]


def test_a_wrong_tracker_is_refused_before_anything_starts(make_config):
    config = make_config(tracking={"kind": "mlflow", "uri": "./mlruns"})
    with pytest.raises(ValueError, match=r"tracking\.uri"):
        launch(config)
    assert not RunFolder.of(config).path.exists()


def test_a_local_run_with_relative_paths(make_config, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    config = make_config(run={"storage": "runs", "name": "r"}, training={"epochs": 1})
    summary = launch(config)
    assert summary.completed
    assert summary.run == str(tmp_path / "runs" / "r")
    assert read_metrics(tmp_path / "runs" / "r" / "metrics.jsonl")[-1]["step"] == summary.steps
    assert "r: 100%" in capsys.readouterr().err
    assert f"untouched model: {in_words(summary.zero_step['test'])}" in caplog.messages[-2]
    assert f"best, of step {summary.best_step}: {in_words(summary.best['test'])}" in caplog.messages[-1]


def test_a_complete_run_needs_no_cluster(make_config):
    assert finished_summary(make_config()) is None
    summary = launch(make_config())
    on_ray = make_config(launcher={"kind": "ray", "address": "203.0.113.1:1"})  # nobody answers there
    assert launch(on_ray) == summary
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate"):
        launch(make_config(launcher={"kind": "ray"}, optimizer={"learning_rate": 1e-4}))
    run = on_ray.run.model_copy(update={"allow_changes": ["training.epochs"]})
    longer = on_ray.model_copy(update={"run": run, "training": on_ray.training.model_copy(update={"epochs": 99})})
    assert finished_summary(longer) is None, "there are epochs left"


def test_torchrun_without_torchrun_is_refused(make_config, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="start the job with torchrun"):
        launch(make_config(launcher={"kind": "torchrun"}))


def test_without_ray_and_tracker_neither_is_imported():
    script = "import sys, rung.orchestration.launch; print({'ray', 'mlflow'} & sys.modules.keys())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
