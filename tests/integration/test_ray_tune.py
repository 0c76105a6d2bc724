"""Real sweeps on a real Ray: trials that go wrong, trials of several ranks, a driver that is killed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from rung.config.tree import SweepConfig, TrainConfig
from rung.orchestration.ray_tune import run_sweep
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from rung.training.trainer import train

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
RAY_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Ray's own processes, which notice the death of their node late: up to minutes on a busy machine."""


@pytest.fixture(scope="module")
def start_weights(small_dataset, tmp_path_factory):
    """A run's folder to fine-tune from."""
    config = TrainConfig.model_validate(
        {
            "run": {"name": "weights", "storage": str(tmp_path_factory.mktemp("weights"))},
            "data": {"path": str(small_dataset)},
            "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
            "reference": {"mode": "scratch"},
            "training": {"epochs": 0},
        }
    )
    return train(config, LocalContext()).run


def tree_of(storage, small_dataset, start_weights, **search):
    return {
        "run": {"name": "sweep", "storage": str(storage)},
        "data": {"path": str(small_dataset)},
        "batch": {"structures": 8},
        "model": {"init": start_weights},
        "training": {"epochs": 3},
        "launcher": {"max_failures": 0, "start_timeout": 180},
        "sweep": {"space": {"optimizer.learning_rate": {"log_uniform": [1e-4, 1e-2]}}, **search},
    }


def train_or_go_wrong(config, context, sinks):
    """The loop, but for some trials."""
    match config.run.name:
        case "trial-002":
            raise RuntimeError("no such luck")
        case "trial-003":
            summary = train(
                config.model_copy(update={"training": config.training.model_copy(update={"epochs": 0})}),
                LocalContext(),
                sinks,
            )
            context.report({"epoch": 0, "validation/loss": math.nan})
            return summary
        case "trial-004":
            return bytearray(2**62)  # MemoryError, as numpy and torch raise it on a CPU
        case "trial-005":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short
    return train(config, context, sinks)


def test_a_sweep_goes_on_when_trials_go_wrong(ray_cluster, storage, small_dataset, start_weights):
    tree = tree_of(storage, small_dataset, start_weights, trials=6, registered_model="small")
    config = SweepConfig.model_validate(tree)
    summary = json.loads(run_sweep(config, loop=train_or_go_wrong).read_text())
    rows = {row["number"]: row for row in summary["trials"]}
    assert {number: row["state"] for number, row in rows.items() if number <= 5} == {
        0: "finished",
        1: "finished",
        2: "failed",
        3: "failed",
        4: "failed",
        5: "failed",
    }
    assert {rows[6]["state"], rows[7]["state"]} <= {"finished", "pruned"}
    assert rows[2]["error"] == "RuntimeError: no such luck"
    assert rows[3]["error"] == "validation/loss is nan after 1 epochs"
    assert rows[4]["error"].startswith("MemoryError")
    assert rows[5]["error"].startswith("its process was lost")
    assert rows[0]["epochs"] == 0
    assert rows[1]["epochs"] == 3

    folder = storage / "sweep"
    page = (folder / "report.html").read_text()
    assert all(rows[number]["error"].split(":")[0] in page for number in (2, 3, 4, 5))
    assert "no such luck" in (folder / "trials/trial-002/error.txt").read_text()
    assert summary["best"]["test"]["energy_mae"] > 0
    assert Path(summary["best"]["model"]).exists()

    client = MlflowClient(tracking_uri=f"sqlite:///{storage}/mlflow.db")
    parent = (folder / "mlflow_run_id").read_text()
    experiment = client.get_experiment_by_name("rung").experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    states = {run.info.run_name: (run.info.status, run.data.tags.get("rung.state")) for run in children}
    assert states["trial-000"] == states["trial-001"] == ("FINISHED", "finished")
    assert states["trial-003"] == ("FAILED", "failed")
    assert client.get_run(parent).info.status == "FINISHED"
    assert sum(run.data.tags.get("rung.best") == "true" for run in children) == 1
    version = client.get_model_version_by_alias("small", "champion")
    assert version.run_id == parent
    assert list(Path(version.source.removeprefix("file://")).rglob("*.pth.tar")), "the weights are with the model"

    starts = {number: row["starts"] for number, row in rows.items()}
    again = json.loads(run_sweep(config, loop=train_or_go_wrong).read_text())
    assert {row["number"]: row["starts"] for row in again["trials"]} == starts


def test_a_population_goes_on_from_its_best(ray_cluster, storage, small_dataset, start_weights):
    scheduler = {"kind": "pbt", "interval": 1, "quantile": 0.5}
    tree = tree_of(storage, small_dataset, start_weights, trials=2, scheduler=scheduler)
    tree |= {"training": {"epochs": 2}, "tracking": {"kind": "off"}}
    summary = json.loads(run_sweep(SweepConfig.model_validate(tree)).read_text())
    rows = {row["number"]: row for row in summary["trials"]}
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert {number: row["starts"] for number, row in rows.items()} == {0: 1, 1: 1, 2: 2, 3: 2}
    (loser,) = (row for row in rows.values() if row["takeovers"])
    (winner,) = (row for row in rows.values() if row["role"] == "search" and not row["takeovers"])
    (takeover,) = loser["takeovers"]
    assert (takeover["epochs"], takeover["source"]) == (1, winner["number"])
    key = "optimizer.learning_rate"
    rates = [takeover["values"][key], winner["values"][key], loser["values"][key]]
    assert len(set(rates)) == 3, "it goes on with a rate of its own"
    folder = storage / "sweep/trials" / f"trial-{loser['number']:03}"
    assert (
        f"{key}: {winner['values'][key]} then, {loser['values'][key]} now" in (folder / "incidents.jsonl").read_text()
    )
    assert "took over trial" in (storage / "sweep/report.html").read_text()
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["epoch"] for line in lines if line.keys() >= {"epoch", "validation/loss"}] == [0, 1]


def test_trials_of_two_ranks_run_side_by_side(ray_cluster, storage, small_dataset, start_weights):
    import ray

    tree = tree_of(storage, small_dataset, start_weights, trials=1) | {"tracking": {"kind": "off"}}
    tree["launcher"] |= {"num_workers": 2}
    summary = json.loads(run_sweep(SweepConfig.model_validate(tree)).read_text())
    rows = {row["number"]: row for row in summary["trials"]}
    assert rows[0]["state"] == rows[1]["state"] == "finished"
    assert rows[2]["state"] in ("finished", "pruned")
    assert rows[0]["started"] + rows[0]["seconds"] > rows[1]["started"]  # 4 CPUs hold two of them
    assert [
        line["epoch"]
        for line in read_metrics(storage / "sweep/trials/trial-001/metrics.jsonl")
        if "validation/loss" in line and "epoch" in line
    ] == [0, 1, 2]
    assert wait_for_free_cpus(ray, 4.0)


def wait_for_free_cpus(ray, cpus):
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) != cpus:
        assert time.monotonic() < deadline, f"resources are leaked: {ray.available_resources()}"
        time.sleep(0.5)
    return True


@pytest.mark.slow
def test_a_driver_that_is_killed_twice(storage, small_dataset, start_weights):
    tree = tree_of(storage, small_dataset, start_weights, trials=2, concurrent=1)
    tree |= {"training": {"epochs": 4}}
    config = storage / "sweep.yaml"
    config.write_text(yaml.safe_dump(tree))
    folder = storage / "sweep"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    command = [sys.executable, "jobs/sweep.py", "--config", str(config)]
    values, left_behind = {}, []
    for number in (1, 2):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        wait_for_epoch(folder / "trials" / f"trial-{number:03}" / "metrics.jsonl", process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=60)
        left_behind += alive
        assert {one.name() for one in alive} <= RAY_AGENTS
        values |= trials_of(folder)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["number"]: row for row in json.loads((folder / "summary.json").read_text())["trials"]}
    assert sorted(rows) == [0, 1, 2, 3]
    assert all(rows[number]["values"] == known["values"] for number, known in values.items())
    assert rows[0]["starts"] == 1  # it had ended before the first kill
    assert rows[1]["starts"] == 2
    assert all(row["starts"] <= 2 + row["generation"] for row in rows.values())  # once more at each rung
    for row in rows.values():
        lines = read_metrics(folder / "trials" / f"trial-{row['number']:03}" / "metrics.jsonl")
        epochs = [line["epoch"] for line in lines if "validation/loss" in line and "epoch" in line]
        assert epochs == list(range(row["epochs"]))
    assert RunFolder(folder / "trials/trial-001").checkpoints().steps()
    assert not psutil.wait_procs(left_behind, timeout=120)[1]
    client = MlflowClient(tracking_uri=f"sqlite:///{storage}/mlflow.db")
    experiment = client.get_experiment_by_name("rung").experiment_id
    runs = client.search_runs([experiment])
    assert len(runs) == 1 + 4, "no run has a second one in MLflow"
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def wait_for_epoch(path, process):
    deadline = time.monotonic() + 300
    while not any("validation/loss" in line and "epoch" in line for line in read_metrics(path)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def trials_of(folder):
    rows = [json.loads(path.read_text()) for path in folder.glob("trials/*/trial.json")]
    return {row["number"]: row for row in rows}
