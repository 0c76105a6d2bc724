"""A job submitted to a cluster that is started for it, as a user does it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from rung.config.tree import TrainConfig
from rung.training.context import LocalContext
from rung.training.trainer import train

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
PORT_FLAGS = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")


def free_ports(number):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def stop(process, folder):
    """End the processes of this cluster alone; `ray stop` would end every Ray on this machine."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended by itself
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def dashboard():
    """Address of the dashboard of a cluster on ports of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rung-ray-", dir="/tmp"))  # short: socket paths may have 107 characters
    ports = dict(zip(PORT_FLAGS, free_ports(len(PORT_FLAGS)), strict=True))
    flags = [f"--{name}={port}" for name, port in ports.items()]
    command = [
        *RAY,
        "start",
        "--head",
        "--block",
        "--num-cpus=3",
        "--node-ip-address=127.0.0.1",
        "--disable-usage-stats",
    ]
    with (folder / "ray-start.log").open("w") as log:
        process = subprocess.Popen([*command, f"--temp-dir={folder}", *flags], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        address = ("127.0.0.1", ports["dashboard-port"])
        while True:
            try:
                socket.create_connection(address, timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "ray-start.log").read_text()
                assert time.monotonic() < deadline, (folder / "ray-start.log").read_text()
                time.sleep(0.5)
        yield f"http://{address[0]}:{address[1]}"
    finally:
        stop(process, folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mlflow_server(tmp_path):
    """Address of an MLflow server with a database of its own."""
    (port,) = free_ports(1)
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "art")]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "mlflow.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "mlflow.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def submit(dashboard, *entrypoint):
    command = ["job", "submit", "--address", dashboard, "--runtime-env", "jobs/runtime_env.yaml", "--"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*RAY, *command, sys.executable, *entrypoint],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_submitted_pretraining_job_leaves_its_summary(dashboard, small_dataset, tmp_path):
    config = tmp_path / "pretrain.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "run": {"name": "submitted", "storage": str(tmp_path / "runs")},
                "data": {"path": str(small_dataset)},
                "batch": {"structures": 8},
                "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
                "reference": {"mode": "scratch"},
                "training": {"epochs": 1},
                "launcher": {"num_workers": 2},
                "tracking": {"kind": "off"},
            }
        )
    )
    code, output = submit(dashboard, "jobs/pretrain.py", "--config", str(config))
    assert code == 0, output
    summary = tmp_path / "runs" / "submitted" / "summary.json"
    assert json.loads(summary.read_text())["completed"]
    assert str(summary) in output


def test_a_submitted_sweep_is_in_the_books_of_an_mlflow_server(dashboard, mlflow_server, small_dataset, tmp_path):
    from mlflow import MlflowClient

    tree = {
        "run": {"name": "weights", "storage": str(tmp_path / "runs")},
        "data": {"path": str(small_dataset)},
        "batch": {"structures": 8},
        "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
        "reference": {"mode": "scratch"},
        "training": {"epochs": 0},
    }
    weights = train(TrainConfig.model_validate(tree), LocalContext()).run
    search = {
        "trials": 2,
        "space": {"optimizer.learning_rate": {"choice": [1e-4, 1e-3]}},
        "registered_model": "submitted",
    }
    tree |= {
        "run": {"name": "sweep", "storage": str(tmp_path / "runs")},
        "model": {"init": weights},
        "reference": {"mode": "refit"},
        "training": {"epochs": 2},
        "tracking": {"uri": mlflow_server, "experiment": "served"},
        "sweep": search,
    }
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(tree))
    code, output = submit(dashboard, "jobs/sweep.py", "--config", str(config))
    assert code == 0, output
    summary = json.loads((tmp_path / "runs" / "sweep" / "summary.json").read_text())
    assert {row["state"] for row in summary["trials"]} <= {"finished", "pruned"}
    client = MlflowClient(tracking_uri=mlflow_server)
    runs = client.search_runs([client.get_experiment_by_name("served").experiment_id])
    assert len(runs) == 1 + 4
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parent} == {parent.info.run_id}
    assert client.get_model_version_by_alias("submitted", "champion").run_id == parent.info.run_id
    assert client.list_artifacts(parent.info.run_id, "best")


def test_a_job_that_would_store_its_run_in_the_upload_is_refused(dashboard, small_dataset):
    code, output = submit(dashboard, "jobs/pretrain.py", "--data.path", str(small_dataset))
    assert code == 1
    assert "run.storage 'runs'" in output
    assert "absolute path" in output
