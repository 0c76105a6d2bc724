"""Secrets stay where they are, and Ray's authentication stays on, in runs as a user starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rung.config.command import run_job
from rung.config.tree import TrainConfig
from rung.orchestration import launch
from rung.orchestration.mlflow_sink import MlflowSink
from rung.training.run import SUMMARY_NAME

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2-hunter2"


def pretrain(config):
    return Path(launch.launch(config).run) / SUMMARY_NAME


@pytest.mark.parametrize("place", ["environment", "address"])
def test_a_secret_is_in_nothing_that_a_run_writes(small_dataset, storage, tmp_path, monkeypatch, capfd, place):
    """Logs, configs, checkpoints, models, MLflow's database and artifacts: every byte is looked at."""
    tree = {
        "run": {"storage": str(storage)},
        "data": {"path": str(small_dataset)},
        "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
        "reference": {"mode": "scratch"},
        "training": {"epochs": 1},
        "launcher": {"kind": "local"},
    }
    if place == "environment":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        tree["data"]["cache"] = f"/tmp/cache-of-{SECRET}"
    else:  # nobody answers there, which will be told
        tree["tracking"] = {"uri": f"http://rung:{SECRET}@127.0.0.1:9"}
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr(launch, "tracker", lambda _: MlflowSink(interval=0.02, patience=1.0))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert run_job(TrainConfig, pretrain, ["--config", str(path)]) == 0
    assert run_job(TrainConfig, pretrain, ["--config", str(path), "--dry-run"]) == 0
    seen = capfd.readouterr()
    assert SECRET not in seen.out + seen.err
    assert "***" in seen.out + seen.err
    written = [file for file in storage.rglob("*") if file.is_file()]
    assert {"config.yaml", "state.pt", "model.pth.tar"} <= {file.name for file in written}
    assert not [file for file in written if SECRET.encode() in file.read_bytes()]
    if place == "environment":
        assert b"cache-of-***" in (storage / "mlflow.db").read_bytes(), "MLflow has the parameter without the secret"


PROBE = """
import urllib.error, urllib.request, ray
from pathlib import Path
from rung.orchestration.cluster import connected

def status(headers):
    address = f"http://{ray._private.worker.get_dashboard_url()}/api/jobs/"
    try:
        return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code

def bearer(token):
    return {"Authorization": f"Bearer {token}"}

with connected(None):
    token = Path("~/.ray/auth_token").expanduser().read_text().strip()
    print("answers", *(status(headers) for headers in ({}, bearer("wrong"), bearer(token))))
"""


@pytest.mark.ray
def test_a_cluster_that_rung_starts_asks_for_a_token(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "answers 401 403 200" in done.stdout


def test_only_tests_turn_the_authentication_off():
    places = [
        path for folder in ("platform", "jobs", "data_prep", "k8s", "docs") for path in (ROOT / folder).rglob("*")
    ]
    places += [ROOT / "Makefile", ROOT / "README.md", ROOT / "pyproject.toml"]
    text = "\n".join(path.read_text(errors="ignore") for path in places if path.is_file())
    assert "RAY_AUTH_MODE=disabled" not in text.replace('"', "").replace(" ", "").replace(":", "=")
