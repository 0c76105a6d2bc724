"""Metrics to MLflow, off the training thread and without power over it."""

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rung.config.secrets import redacted
from rung.config.tree import TrainConfig
from rung.orchestration.settled_sink import SettledSink
from rung.orchestration.system_metrics import NodeSamples
from rung.training.sinks import METRICS_NAME, MetricSink, RunDescription

if TYPE_CHECKING:
    from rung.orchestration.mlflow_run import TrackedRun

logger = logging.getLogger(__name__)

DATABASE_NAME = "mlflow.db"

_SCHEMES = ("http", "https", "databricks", "sqlite", "postgresql", "mysql", "mssql")

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_ANSWER_SECONDS = 5.0


def tracking_uri(config: TrainConfig) -> str:
    """Where MLflow keeps its books: the config's, MLFLOW_TRACKING_URI's, or a database in the storage folder.

    Raises:
        ValueError: MLflow cannot write there.
    """
    return resolve_uri(config.tracking.uri, config.run.storage)


def resolve_uri(given: str | None, storage: str) -> str:
    """Where MLflow keeps its books: as given, MLFLOW_TRACKING_URI's, or a database in the storage folder.

    Raises:
        ValueError: MLflow cannot write there.
    """
    embedded = f"sqlite:///{Path(storage).expanduser().absolute() / DATABASE_NAME}"
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or embedded
    scheme = urlsplit(uri).scheme.partition("+")[0]  # postgresql+psycopg2
    if scheme not in _SCHEMES and uri != "databricks":
        raise ValueError(
            f"tracking.uri (registry.uri, MLFLOW_TRACKING_URI) {redacted(uri)!r} is not of the kind"
            f" {', '.join(_SCHEMES)}: MLflow no longer writes to plain folders. Give a server (http://host:5000) or a"
            " database (sqlite:////absolute/path.db), leave all unset for one in run.storage, or set tracking.kind to"
            " off"
        )
    return uri


def check_server(uri: str, timeout: float) -> None:
    """Knock on a server's door, where it has one that can be reached directly.

    MLflow's own client tries again for minutes before it tells that nobody is there.

    Args:
        uri: of MLflow, as `resolve_uri` gives it.
        timeout: longest wait, s.

    Raises:
        ConnectionError: nobody answers; says what to change.
    """
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    by_proxy = parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")
    if parts.hostname is None or port is None or by_proxy:
        return
    try:
        socket.create_connection((parts.hostname, port), timeout=timeout).close()
    except OSError as error:
        raise ConnectionError(
            f"no server answers at port {port} of {parts.hostname} ({error.strerror or error}): start it, correct"
            " tracking.uri (MLFLOW_TRACKING_URI), or set tracking.kind to off"
        ) from error


def tracker(config: TrainConfig, tags: Mapping[str, str] | None = None) -> MetricSink:
    """The sink for a run's metrics, and tags of its MLflow run besides its own."""
    sink = MlflowSink(tags=tags)
    return SettledSink(sink) if config.faults.non_finite == "rewind" else sink


class MlflowSink:
    """Sends metrics in batches from a thread of its own.

    An MLflow that is slow or gone delays nothing: values wait here, the user is told once, and what is left at the end
    is in the run's metrics.jsonl, from where the next start of the run sends it.

    Args:
        interval: seconds between two batches.
        patience: seconds to wait at the end for an MLflow that makes no progress.
        tags: of the run, besides its own.
    """

    def __init__(self, interval: float = 2.0, patience: float = 60.0, tags: Mapping[str, str] | None = None) -> None:
        self._tags = dict(tags or {})
        self._interval = interval
        self._patience = patience
        self._waiting: list[tuple[str, float, int, int]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._ending: Callable[[TrackedRun], None] | None = None
        self._run: TrackedRun | None = None
        self._failed = False
        self._thread: threading.Thread | None = None

    def start(self, description: RunDescription) -> None:
        """Open the run in the background.

        Raises:
            ValueError: MLflow cannot write to the configured place.
        """
        self._description = description
        self._nodes = NodeSamples(description.folder)
        self._uri = tracking_uri(description.config)
        self._shown_uri = redacted(self._uri)  # a database's address may hold a password
        logger.info("MLflow: experiment %s at %s", description.config.tracking.experiment, self._shown_uri)
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue the finite ones; MLflow's databases cannot hold the others."""
        now = int(time.time() * 1000)
        values = [(name, float(value), now, step) for name, value in metrics.items() if math.isfinite(value)]
        with self._lock:
            self._waiting += values

    def finish(self, artifacts: Sequence[Path]) -> None:
        """Send what waits, upload the artifacts, and mark the run as finished."""
        self._close(lambda run: run.finish(artifacts))

    def abort(self) -> None:
        """Send what waits, and mark the run as failed."""
        self._close(lambda run: run.abort())

    def _close(self, ending: "Callable[[TrackedRun], None]") -> None:
        if self._thread is None or self._closing.is_set():
            return
        self._ending = ending
        self._closing.set()
        waiting = None
        while self._thread.is_alive() and waiting != len(self._waiting):
            waiting = len(self._waiting)
            self._thread.join(self._patience)
        if self._thread.is_alive():
            self._given_up.set()
            logger.warning(
                "MLflow at %s missed the end of %s and %d values; they are in its %s, and the next start sends them",
                self._shown_uri,
                self._description.folder,
                len(self._waiting),
                METRICS_NAME,
            )

    def _work(self) -> None:
        pause = self._interval
        while not self._given_up.is_set():
            if self._failed and self._closing.is_set():
                self._given_up.wait(min(pause, self._patience / 10))
            closing = self._closing.wait(pause)
            try:
                self._send()
                if closing and self._ending is not None and self._run is not None:
                    self._ending(self._run)
                    return
                pause, self._failed = self._interval, False
            except Exception as error:  # noqa: BLE001 (whatever a tracker raises, training must go on)
                self._tell_once(error)
                pause, self._failed = min(2 * pause, 60.0), True

    def _send(self) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415 (takes seconds; here it delays nobody)

        from rung.orchestration.mlflow_run import MAX_METRICS, TrackedRun  # noqa: PLC0415

        if self._run is None:
            check_server(self._uri, _ANSWER_SECONDS)
            self._run = TrackedRun.open(self._description, self._uri, self._tags)
        with self._lock:
            self._waiting += self._nodes.new()
        while self._waiting:
            with self._lock:
                batch = self._waiting[:MAX_METRICS]
            self._run.log([Metric(*value) for value in batch])
            with self._lock:
                del self._waiting[: len(batch)]

    def _tell_once(self, error: Exception) -> None:
        if not self._failed:
            logger.warning(
                "MLflow at %s does not take metrics (%s: %s). Training goes on, and they are sent later",
                self._shown_uri,
                type(error).__name__,
                redacted(str(error)).partition("\n")[0],
            )
