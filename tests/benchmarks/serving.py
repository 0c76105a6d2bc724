"""`mlflow models serve` under load: requests of one structure each from several clients at once.

    python -m tests.benchmarks.serving --json figures.json

The model is CHGNet r2scan (412,525 parameters) in the form that `export` publishes; structures are real cells. Every
answer is checked against the model's own. Latencies are those that a client sees, waiting for a free core included.
"""

import json
import os
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from rung.model.weights import load, save_model
from rung.orchestration.model_package import save_package
from tests.benchmarks.cells import cells
from tests.benchmarks.figures import Figures, run
from tests.integration.servers import served

_REQUESTS, _CLIENTS, _CELLS, _MOST_ATOMS = 1000, 8, 20, 40


def measure() -> Figures:
    """Send the requests, and time them."""
    drawn, origin = cells()
    structures = [cell for cell in drawn if len(cell) <= _MOST_ATOMS][:: max(1, len(drawn) // _CELLS)][:_CELLS]
    model = load("r2scan")
    expected = [float(model.predict_structure(cell)["e"]) for cell in structures]
    bodies = [json.dumps({"inputs": [cell.as_dict()]}).encode() for cell in structures]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        package = save_package(save_model(model, folder / "chgnet.pth.tar", {}), folder / "package", {})
        address = stack.enter_context(served(package, folder))
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


def _energy(address: str, body: bytes) -> float:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())["predictions"][0]["energy_per_atom"]


if __name__ == "__main__":
    run(measure, __doc__)
