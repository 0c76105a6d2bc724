"""Watching a run through its folder, the only channel between the loop and whoever looks on.

Rank 0 may run on another machine, be killed and start again elsewhere. It writes down who the run is (description.json)
and how it goes (metrics.jsonl); the process that started the run reads both and feeds its progress bar and its tracker.
So a tracker that does not answer never slows the loop, workers need no tracker, and what a tracker missed is still in
the file for the next start.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from rung.config.progress import LiveBar, progress_bar, waiting
from rung.config.secrets import redacted_values
from rung.config.tree import TrainConfig
from rung.training.meanwhile import MEANWHILE_NAME
from rung.training.resilience.storage import insist
from rung.training.run import DESCRIPTION_NAME, RunFolder, TrainSummary
from rung.training.sinks import METRICS_NAME, MetricSink, ProgressSink, RunDescription

logger = logging.getLogger(__name__)

_USUAL_START = 15.0  # seconds from Ray's first worker to the description of the run

_FIELDS = (
    "manifest_hash",
    "manifest",
    "reference",
    "num_parameters",
    "versions",
    "first_step",
    "total_steps",
    "hardware",
)
"""What description.json holds of a RunDescription; folder and config are known to whoever started the run."""


class DescriptionSink:
    """The loop's side: writes description.json when the run starts, and names its artifacts when it is complete."""

    def __init__(self) -> None:
        self._folder: RunFolder | None = None
        self._content: dict[str, Any] = {}
        self._patience = 0.0

    def start(self, description: RunDescription) -> None:
        """Write down who the run is."""
        self._folder = RunFolder(description.folder)
        self._patience = description.config.faults.storage_patience
        self._content = {name: getattr(description, name) for name in _FIELDS}
        self._write()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics are in metrics.jsonl already."""

    def finish(self, artifacts: Sequence[Path]) -> None:
        """Name the files that the run leaves."""
        self._content["artifacts"] = [str(path) for path in artifacts]
        self._write()

    def abort(self) -> None:
        """Nothing to name."""

    def _write(self) -> None:
        folder = self._folder
        if folder is not None:
            text = json.dumps(redacted_values(self._content), indent=1)
            insist(lambda: folder.write(DESCRIPTION_NAME, text), DESCRIPTION_NAME, self._patience)


class RunWatcher:
    """The starter's side: follows the folder in a thread and feeds sinks from it.

    Metrics come in the order of the file. A restarted loop rewrites the file from its checkpoint on, so sinks see some
    steps twice.

    Args:
        config: the run.
        sinks: receivers of its metrics.
        interval: seconds between two looks.
    """

    def __init__(self, config: TrainConfig, sinks: Sequence[MetricSink], interval: float = 0.5) -> None:
        self._config = config
        self._folder = RunFolder.of(config).path
        self._sinks = sinks
        self._interval = interval
        self._metrics = LineFollower(self._folder / METRICS_NAME)
        self._meanwhile = _MeanwhileBar(self._folder / MEANWHILE_NAME)
        self._stale = modified(self._folder / DESCRIPTION_NAME)
        self._started = False
        self._starting = ExitStack()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="run-watcher", daemon=True)

    def start(self) -> Self:
        """Begin to watch."""
        self._starting.enter_context(waiting("starting the ranks", _USUAL_START))
        self._thread.start()
        return self

    def close(self, *, completed: bool) -> None:
        """Deliver what is left, then finish the sinks of a completed run and abort those of any other."""
        self._closing.set()
        self._thread.join()
        self._starting.close()
        self._meanwhile.close()
        self._poll()
        if not self._started and completed:  # it was complete before this start: trackers may have missed its end
            self._sinks = [sink for sink in self._sinks if not isinstance(sink, ProgressSink)]
            self._introduce()
            self._poll()
        if not self._started:
            if completed:
                logger.warning("%s cannot be seen from here: no progress, no tracking", self._folder / DESCRIPTION_NAME)
            return
        artifacts = [Path(path) for path in self._description().get("artifacts", [])]
        for sink in self._sinks:
            if completed:
                sink.finish(artifacts)
            else:
                sink.abort()

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            try:
                self._poll()
            except OSError as error:  # shared storage hiccups; what was not read now is read next time
                logger.debug("%s: %s", self._folder, error)

    def _poll(self) -> None:
        if self._meanwhile.under_way:
            self._starting.close()
        self._meanwhile.show()
        if not self._started and modified(self._folder / DESCRIPTION_NAME) != self._stale:
            self._introduce()
        if not self._started:
            return
        for line in self._metrics.new_lines():
            metrics = json.loads(line)
            step = metrics.pop("step")
            for sink in self._sinks:
                sink.log(metrics, step)

    def _introduce(self) -> None:
        content = self._description()
        if not content:
            return
        self._starting.close()
        fields = {name: content[name] for name in _FIELDS if name in content}
        description = RunDescription(folder=self._folder, config=self._config, **fields)
        for sink in self._sinks:
            sink.start(description)
        self._started = True

    def _description(self) -> dict[str, Any]:
        path = self._folder / DESCRIPTION_NAME
        return json.loads(path.read_text()) if path.exists() else {}


def run_watched(run: Callable[[], TrainSummary], config: TrainConfig, sinks: Sequence[MetricSink]) -> TrainSummary:
    """Call `run`, which trains the run of the config here or elsewhere, and watch it meanwhile."""
    watcher = RunWatcher(config, sinks).start()
    completed = False
    try:
        summary = run()
        completed = summary.completed
        return summary
    finally:
        watcher.close(completed=completed)


class _MeanwhileBar:
    """Shows what the run does besides its steps: a bar on a terminal, elsewhere a line the first time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._what = ""
        self._bar: LiveBar | None = None
        self._told: set[str] = set()
        path.unlink(missing_ok=True)  # of a start that was killed

    @property
    def under_way(self) -> bool:
        """Whether there is such work; the file is there while it goes on."""
        return self._path.exists()

    def show(self) -> None:
        """Look at the file."""
        if not self.under_way:
            self.close()
            return
        content = json.loads(self._path.read_text())
        what, done, total, unit = (content[name] for name in ("what", "done", "total", "unit"))
        if self._bar is None or self._what != what:
            self.close()
            self._what, self._bar = what, progress_bar(what, total, unit, done=done)
        if not self._bar.disable:
            self._bar.update(done - self._bar.n)
        elif what not in self._told:
            self._told.add(what)
            logger.info("%s: %s of %s %ss so far", what, f"{done:,}", f"{total:,}", unit)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LineFollower:
    """Reads a growing text file line by line; starts over when the file is replaced by another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = -1
        self._offset = 0

    def new_lines(self) -> list[str]:
        """Whole lines since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset = status.st_ino, 0
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self._offset += len(whole) + 1
        return whole.decode().splitlines()


def modified(path: Path) -> int | None:
    """When a file was changed last, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None
