"""A run while its MLflow server is killed for 30 seconds: speed of the steps, and what MLflow holds afterwards.

    python -m tests.benchmarks.outage --json figures.json

The server stands on PostgreSQL where that is installed. The run trains in one process, logs every step, and has the
server die and come back four times, with as long a time between. Steps differ in their structures and epochs do not, so
what is compared is an epoch's time in steps, as the run logs it (`time/seconds_per_step`): the median of an outage's
epochs with the mean of those just before and just after, since other work on the machine comes and goes. Beside it the
processor time of the threads that watch and send, which share this process with the training thread, as a share of one
core.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import math
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
from _pytest.outcomes import Skipped
from mlflow import MlflowClient
from mlflow.entities import Metric

from data_prep.convert import prepare
from rung.config.tree import PrepareConfig, TrainConfig
from rung.orchestration.launch import launch
from rung.training.sinks import read_metrics
from tests.benchmarks.figures import Figures, run
from tests.integration.servers import MlflowServer, postgres

_SECONDS, _OUTAGES, _EPOCHS = 30.0, 4, 300


def measure() -> Figures:
    """Train through the outages, then compare."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        database, kind = f"sqlite:///{folder}/server.db", "sqlite"
        with suppress(Skipped):
            database, kind = stack.enter_context(postgres()), "postgresql"
        source = {"kind": "surrogate", "functional": "GGA", "num_structures": 200}
        prepare(PrepareConfig.model_validate({"output": str(folder / "data"), "source": source}))
        server = stack.enter_context(MlflowServer(folder, database, folder / "artifacts"))
        config = _config(folder, "outage", {"uri": server.uri})
        training = threading.Thread(target=launch, args=(config,))
        training.start()
        outages, shares = _kill_and_restart(server, training)
        training.join()
        lines = read_metrics(folder / "runs" / "outage" / "metrics.jsonl")
        missing, doubled, values = _compared(server.uri, lines)
        epochs = _epoch_times(server.uri)
    changes = [_change(epochs, *outage) for outage in outages]
    return {
        "slowdown_away": float(np.median(changes)),
        "slowdown_of_each_outage": ", ".join(f"{change:+.4f}" for change in changes),
        "median_epoch_s": float(np.median([seconds for _, _, seconds in epochs])),
        "epochs": len(epochs),
        "tracking_cores_away": float(np.mean([share for share, _ in shares])),
        "tracking_cores_there": float(np.mean([share for _, share in shares])),
        "values": values,
        "values_missing": missing,
        "values_doubled": doubled,
        "outages_of_seconds": ", ".join(f"{end - begin:.0f}" for begin, end in outages),
        "database": kind,
        "load_average": os.getloadavg()[0],
    }


def _config(folder: Path, name: str, tracking: dict[str, str]) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "run": {"name": name, "storage": str(folder / "runs")},
            "data": {"path": str(folder / "data")},
            "batch": {"structures": 8},
            "model": {"feature_dim": 32, "num_radial": 9, "num_angular": 9, "num_blocks": 4},
            "reference": {"mode": "scratch"},
            "training": {"epochs": _EPOCHS, "log_every": 1},
            "launcher": {"kind": "local"},
            "tracking": tracking,
        }
    )


def _kill_and_restart(
    server: MlflowServer, training: threading.Thread
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Let the server be away for a while, some times.

    Returns:
        when that was (s since 1970), and the share of a core that tracking took: while away, and before.
    """
    outages, shares = [], []
    for _ in range(_OUTAGES):
        before = _share_of_a_core(lambda: training.join(timeout=_SECONDS))
        begin = time.time()
        server.kill()
        away = _share_of_a_core(lambda: training.join(timeout=_SECONDS))
        end = time.time()
        server.start()
        if training.is_alive():
            outages.append((begin, end))
            shares.append((away, before))
    return outages, shares


def _share_of_a_core(wait: Callable[[], None]) -> float:
    """Processor time of the threads that track, over the time waited."""
    first, begin = _tracking_seconds(), time.monotonic()
    wait()
    return (_tracking_seconds() - first) / (time.monotonic() - begin)


def _tracking_seconds() -> float:
    """Processor time so far of the threads that track, s."""
    seconds = {each.id: each.user_time + each.system_time for each in psutil.Process().threads()}
    names = ("mlflow", "run-watcher", "system-metrics")
    return sum(seconds.get(each.native_id or 0, 0.0) for each in threading.enumerate() if each.name in names)


def _compared(uri: str, lines: list[dict[str, float]]) -> tuple[int, int, int]:
    """Values that MLflow lacks, has twice, and should have."""
    client, run_id = MlflowClient(tracking_uri=uri), _run_id(uri)
    expected = {
        (name, line["step"]): value
        for line in lines
        for name, value in line.items()
        if name != "step" and math.isfinite(value)
    }
    found = [
        (name, metric.step)
        for name in {name for name, _ in expected}
        for metric in client.get_metric_history(run_id, name)
    ]
    return len(expected.keys() - set(found)), len(found) - len(set(found)), len(expected)


def _epoch_times(uri: str) -> list[tuple[float, float, float]]:
    """When each epoch's first and last step was logged (s since 1970), and the seconds its steps took."""
    client, run_id = MlflowClient(tracking_uri=uri), _run_id(uri)
    epoch_of = {metric.step: metric.value for metric in client.get_metric_history(run_id, "epoch")}
    epochs: dict[float, list[Metric]] = {}
    for metric in client.get_metric_history(run_id, "time/seconds_per_step"):
        epochs.setdefault(epoch_of[metric.step], []).append(metric)
    times = [
        (steps[0].timestamp / 1e3, steps[-1].timestamp / 1e3, sum(step.value for step in steps))
        for steps in epochs.values()
    ]
    return sorted(times)


def _change(epochs: list[tuple[float, float, float]], begin: float, end: float) -> float:
    """By how much an epoch took longer between two times than just before and after."""

    def median_within(first: float, last: float) -> float:
        return float(np.median([seconds for start, stop, seconds in epochs if first <= start and stop <= last]))

    around = median_within(begin - _SECONDS, begin), median_within(end, end + _SECONDS)
    return median_within(begin, end) / float(np.mean(around)) - 1


def _run_id(uri: str) -> str:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("rung")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    return found.info.run_id


if __name__ == "__main__":
    run(measure, __doc__)
