"""A run whose storage refuses writes and then is full, and whose tracker goes away: all for real, one after the other.

The storage is a small file system in memory (which only root can mount); it is made read-only, then filled to the last
byte. The tracker is an MLflow server that is killed and started again.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from mlflow import MlflowClient

from rung.config.tree import TrainConfig
from rung.orchestration.launch import sinks_of
from rung.orchestration.watch import DescriptionSink, run_watched
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from rung.training.trainer import train

MAY_MOUNT = hasattr(os, "geteuid") and os.geteuid() == 0
_MIB = 2**20
_PAUSE = 0.01  # s in each step, so that a long outage does not need tens of thousands of them


class MlflowServer:
    """A server with a database of its own.

    Args:
        folder: for its database and artifacts.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        store = ["--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"]
        place = ["--artifacts-destination", str(self._folder / "artifacts"), "--port", str(self._port)]
        command = [sys.executable, "-m", "mlflow", "server", *store, *place, "--workers", "1"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 180
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        """End it as the kernel would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def small_storage(folder: Path, size_mib: int) -> Iterator[Path]:
    """A file system of that size."""
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "rung-outages", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))


@contextmanager
def read_only(storage: Path) -> Iterator[None]:
    """Storage that refuses every write."""
    deadline = time.monotonic() + 30
    while subprocess.run(["mount", "-o", "remount,ro", str(storage)], check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, "some file stays open for writing"
        time.sleep(0.001)
    try:
        yield
    finally:
        _run("mount", "-o", "remount,rw", str(storage))


@contextmanager
def full(storage: Path) -> Iterator[None]:
    """Storage without a byte left."""
    filler = storage / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(_MIB // 16))
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def down(server: MlflowServer) -> Iterator[None]:
    """A server that is not there."""
    server.kill()
    try:
        yield
    finally:
        server.start()


class Steady(LocalContext):
    """Notes when each step comes, and does not take the last one before it may."""

    def __init__(self, last: int, may_end: threading.Event) -> None:
        super().__init__("cpu")
        self.times: list[float] = []
        self._last, self._may_end = last, may_end

    def should_stop(self, step: int) -> bool:
        """Wait a little."""
        time.sleep(_PAUSE)
        self.times.append(time.monotonic())
        if step == self._last:
            self._may_end.wait()
        return False


def go_through_outages(
    make_config: Callable[[str, Path, str | None], TrainConfig], steps: int, folder: Path, seconds: float
) -> dict[str, float | int | bool]:
    """Train through three outages, and see what is missing afterwards.

    Args:
        make_config: from name, storage and address of the tracker, or None for none.
        steps: of the run in all.
        folder: to work in.
        seconds: of each outage.

    Returns:
        Figures: steps done while storage refused and the tracker was down, the longest of them, and values that MLflow
        lacks or has twice.
    """
    server = MlflowServer(folder)
    server.start()
    over = threading.Event()
    try:
        with small_storage(folder / "storage", 64) as storage:
            config = make_config("outages", storage, server.address)
            context = Steady(steps, over)
            job = lambda: train(config, context, [DescriptionSink()])  # noqa: E731
            thread = threading.Thread(target=run_watched, args=(job, config, sinks_of(config)))
            thread.start()
            spans = []
            for outage in (read_only(storage), full(storage), down(server)):
                _wait_for_steps(context, thread, 25)
                with outage:
                    begin = time.monotonic()
                    time.sleep(seconds)
                    spans.append((begin, begin + seconds))
            over.set()
            thread.join()
            whole = make_config("whole", folder, None)
            train(whole, LocalContext("cpu"))
            return {**_pace(context.times, spans), **_books(config, server), "weights_equal": _equal(config, whole)}
    finally:
        server.kill()


def _wait_for_steps(context: Steady, thread: threading.Thread, more: int) -> None:
    enough = len(context.times) + more
    while len(context.times) < enough:
        assert thread.is_alive(), "the run has ended"
        time.sleep(0.01)


def _pace(times: list[float], spans: list[tuple[float, float]]) -> dict[str, float | int]:
    """How training went on in outages."""
    steps = list(pairwise(times))
    within = [end - begin for begin, end in steps if any(start <= begin and end <= stop for start, stop in spans)]
    return {
        "steps_in_outages": len(within),
        "longest_step_in_outages_seconds": max(within, default=0.0),
        "median_step_seconds": statistics.median(end - begin for begin, end in steps),
    }


def _books(config: TrainConfig, server: MlflowServer) -> dict[str, int]:
    """What MLflow has of the run's file."""
    folder = RunFolder.of(config).path
    lines = read_metrics(folder / "metrics.jsonl")
    wanted = {(name, line["step"]): value for line in lines for name, value in line.items() if name != "step"}
    client, run_id = MlflowClient(tracking_uri=server.address), (folder / "mlflow_run_id").read_text()
    found = [
        ((name, metric.step), metric.value)
        for name in {name for name, _ in wanted}
        for metric in client.get_metric_history(run_id, name)
    ]
    return {
        "values": len(wanted),
        "values_missing": len(set(wanted.items()) - set(found)),
        "values_twice": len(found) - len({key for key, _ in found}),
        "finished": client.get_run(run_id).info.status == "FINISHED",
    }


def _equal(config: TrainConfig, whole: TrainConfig) -> bool:
    one, other = (RunFolder.of(each).load_state("last")["model"]["state_dict"] for each in (config, whole))
    return all(torch.equal(value, other[name]) for name, value in one.items())


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
