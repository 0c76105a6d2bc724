"""The MLflow Deployment's own commands, run here: its database is made, and it answers to its Service's names alone."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("mlflow:5000", "mlflow.rung:5000", "mlflow.rung.svc:5000", "mlflow.rung.svc.cluster.local:5000")
PORT = 5000


@pytest.fixture(scope="module")
def pod():
    """The rendered pod of the Deployment."""
    from tests.k8s.manifests import pods, render

    (found,) = [pod for pod in pods(render(ROOT / "k8s" / "base")) if pod.owner == "Deployment/mlflow"]
    return found


@pytest.fixture(scope="module")
def start(pod, tmp_path_factory):
    """Starts a container's command as its node would: variables filled in, Secrets by values for this machine."""
    folder = tmp_path_factory.mktemp("mlflow")
    secrets = {"backend-store-uri": f"sqlite:///{folder}/mlflow.db", "artifacts": str(folder / "artifacts")}

    def started(container):
        own = {e["name"]: e.get("value") or secrets[e["valueFrom"]["secretKeyRef"]["key"]] for e in container["env"]}
        words = [re.sub(r"\$\((\w+)\)", lambda name: own[name[1]], word) for word in container["command"]]
        program = Path(sys.executable).with_name(words[0])
        inherited = {"PATH": f"{program.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        with (folder / f"{container['name']}.log").open("w") as log:
            return subprocess.Popen(
                [program, *words[1:]],
                env=inherited | own | {"HOME": str(folder)},
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    started.folder = folder
    return started


@pytest.fixture(scope="module")
def server(pod, start):
    """The server, after its init container."""
    if shutil.which("mlflow", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("mlflow's command is not beside this Python")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT}, which the Deployment's command names, is taken on this machine")
    (upgrade,) = pod.spec["initContainers"]
    assert start(upgrade).wait(timeout=180) == 0, (start.folder / "upgrade.log").read_text()
    (container,) = pod.spec["containers"]
    process = start(container)
    try:
        deadline = time.monotonic() + 180
        while not answers(process):
            assert time.monotonic() < deadline, (start.folder / "mlflow.log").read_text()
            time.sleep(0.5)
        yield container
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def answers(process) -> bool:
    assert process.poll() is None, "the server ended"
    try:
        return get("/health", "localhost:5000") == 200
    except OSError:
        return False


def get(path: str, host: str) -> int:
    """The status of a request under the given name of the server."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def test_probes_are_answered(server):
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert get(server[probe]["httpGet"]["path"], "10.0.0.7:5000") == 200


@pytest.mark.parametrize("host", [*NAMES, "localhost:5000", "localhost:8080", "127.0.0.1:5000"])
def test_the_names_of_its_service_are_answered(server, host):
    assert get(SEARCH, host) == 200


@pytest.mark.parametrize("host", ["evil.example:5000", "mlflow.other:5000", "10.0.0.7:5000", "mlflow"])
def test_other_names_are_refused(server, host):
    assert get(SEARCH, host) == 403


def test_clients_find_it_under_the_name_in_the_config_map(server):
    from tests.k8s.manifests import render

    base = render(ROOT / "k8s" / "base")
    (settings,) = [item["data"] for item in base if item["metadata"]["name"] == "rung-env"]
    assert settings["MLFLOW_TRACKING_URI"].removeprefix("http://") in NAMES
