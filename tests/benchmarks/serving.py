"""`mlflow models serve` under load: requests of one structure each from several clients at once.

    python -m tests.benchmarks.serving --json figures.json

The model is CHGNet r2scan (412,525 parameters) in the form that `export` publishes; structures are real cells. Every
answer is checked against the model's own. Latencies are those that a client sees, waiting for a free core included.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rung.model.weights import load, save_model
from rung.orchestration.model_package import save_package
from tests.benchmarks.cells import cells
from tests.benchmarks.figures import Figures, run
from tests.integration.servers import free_ports, wait_for_port

_REQUESTS, _CLIENTS, _CELLS, _MOST_ATOMS = 1000, 8, 20, 40


def measure() -> Figures:
    """Send the requests, and time them."""
    drawn, origin = cells()
    structures = [cell for cell in drawn if len(cell) <= _MOST_ATOMS][:: max(1, len(drawn) // _CELLS)][:_CELLS]
    model = load("r2scan")
    expected = [float(model.predict_structure(cell)["e"]) for cell in structures]
    bodies = [json.dumps({"inputs": [cell.as_dict()]}).encode() for cell in structures]
    with tempfile.TemporaryDirectory() as name, _served(model, Path(name)) as address:
        for body in bodies:
            _energy(address, body)
        seconds: list[float] = []
        failures: list[str] = []
        waiting = iter(range(_REQUESTS))
        lock = threading.Lock()

        def client() -> None:
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                begin = time.perf_counter()
                try:
                    energy = _energy(address, bodies[number % len(bodies)])
                    wrong = abs(energy - expected[number % len(bodies)]) > 1e-5
                except OSError as error:
                    energy, wrong = str(error), True
                with lock:
                    seconds.append(time.perf_counter() - begin)
                    if wrong:
                        failures.append(f"request {number}: {energy}")

        begin = time.perf_counter()
        clients = [threading.Thread(target=client) for _ in range(_CLIENTS)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        total = time.perf_counter() - begin
    return {
        "requests": len(seconds),
        "clients": _CLIENTS,
        "errors": len(failures),
        "first_error": failures[0] if failures else "",
        "p50_ms": 1e3 * float(np.percentile(seconds, 50)),
        "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
        "requests_per_second": len(seconds) / total,
        "atoms_mean": float(np.mean([len(cell) for cell in structures])),
        "load_average": os.getloadavg()[0],
        "origin": origin,
    }


@contextmanager
def _served(model, folder: Path) -> Iterator[str]:
    package = save_package(save_model(model, folder / "chgnet.pth.tar", {}), folder / "package", {})
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(package), "-p", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    log = folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "--env-manager", "local"],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _energy(address: str, body: bytes) -> float:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())["predictions"][0]["energy_per_atom"]


if __name__ == "__main__":
    run(measure, __doc__)
