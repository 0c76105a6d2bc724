"""Where metrics go. The trainer speaks to sinks on rank 0 only; trackers such as MLflow live in orchestration."""

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from rung.config.progress import LiveBar
from rung.config.tree import TrainConfig
from rung.training.resilience.storage import insist

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
INCIDENTS_NAME = "incidents.jsonl"


@dataclass(frozen=True)
class RunDescription:
    """What a tracker should know of a run before its first metric."""

    folder: Path
    """The run's folder: storage / name."""
    config: TrainConfig
    manifest_hash: str
    """sha256 of the data set's manifest."""
    manifest: Mapping[str, Any]
    """Its content."""
    reference: Mapping[str, Any]
    """How the elemental reference came about, with the doctor's diagnosis, as JSON."""
    num_parameters: int
    versions: Mapping[str, str]
    """Of the packages that decide the numbers, by name."""
    first_step: int
    """Global step at which this start begins: 0, or the step of the checkpoint that it resumes from."""
    total_steps: int
    hardware: Sequence[Mapping[str, Any]] = ()
    """Nodes with the ranks on them, as of `rung.training.hardware.hardware_of_ranks`."""


class MetricSink(Protocol):
    """A receiver of metrics."""

    def start(self, description: RunDescription) -> None:
        """Called once, before the first metric of this start."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take metrics such as `train/energy_mae` (see docs of `rung.training.metrics`) at a global step."""
        ...

    def finish(self, artifacts: Sequence[Path]) -> None:
        """Called once, when training is complete, with the files worth keeping."""
        ...

    def abort(self) -> None:
        """Called instead of `finish` when training stops early or fails."""
        ...


class JsonLinesFile:
    """Appends JSON objects to a file, one a line. What the storage refuses is kept and written before the next line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a line, now or as soon as the storage takes it."""
        told = bool(self._waiting)
        self._waiting += json.dumps(values).encode() + b"\n"
        try:
            self._write()
        except OSError as error:
            if not told:
                logger.warning("%s cannot be written: %s. Its lines are kept, and written later", self._path, error)

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop all lines but the wanted ones, of those that wait too, and one that a crash has cut.

        Raises:
            OSError: the storage refused.
        """
        written = self._path.read_bytes() if self._path.exists() else b""  # what waits may begin within a line
        lines = [json.dumps(line) + "\n" for line in _lines(written + self._waiting, self._path) if wanted(line)]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(lines))
        temporary.replace(self._path)
        self._waiting = b""

    def close(self, patience: float) -> None:
        """Write what waits, in so many seconds at most; with none it is given up.

        Raises:
            StorageError: it refused for longer.
        """
        if self._waiting and patience > 0:
            insist(self._write, str(self._path), patience)

    def _write(self) -> None:
        """Append what waits; a full disk may take a part of it, and the rest follows on exactly there."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(descriptor, self._waiting) :]
        finally:
            os.close(descriptor)


class JsonLinesSink:
    """Keeps every metric in the run's metrics.jsonl, one JSON object a line."""

    def __init__(self) -> None:
        self._file: JsonLinesFile | None = None
        self._patience = 0.0

    def start(self, description: RunDescription) -> None:
        """Open the file, dropping lines of steps that the resumed run will do again.

        Raises:
            StorageError: the storage refused for longer than `faults.storage_patience`.
        """
        self._file = JsonLinesFile(description.folder / METRICS_NAME)
        self._patience = description.config.faults.storage_patience
        self.go_back(description.first_step or -1)  # a start at step 0 logs that step again

    def go_back(self, step: int) -> None:
        """Drop lines of steps after this one.

        Raises:
            StorageError: the storage refused for longer than `faults.storage_patience`.
        """
        file = self._file
        if file is not None:
            insist(lambda: file.keep(lambda line: line["step"] <= step), METRICS_NAME, self._patience)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one line."""
        if self._file is not None:
            self._file.add({"step": step, **metrics})

    def finish(self, artifacts: Sequence[Path]) -> None:  # noqa: ARG002 (they lie beside the file already)
        """Write what the storage has not taken yet.

        Raises:
            StorageError: it refused for longer than `faults.storage_patience`.
        """
        self._close(self._patience)

    def abort(self) -> None:
        """Give up what the storage has not taken yet."""
        self._close(0.0)

    def _close(self, patience: float) -> None:
        if self._file is not None:
            self._file.close(patience)
            self._file = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics.jsonl, nothing where there is none; a line that was cut by a crash is left out."""
    return _lines(path.read_bytes(), path) if path.exists() else []


def _lines(content: bytes, path: Path) -> list[dict[str, Any]]:
    lines = []
    for line in content.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            logger.warning("%s: a line cut by a crash is left out", path)
    return lines


class ProgressSink:
    """Shows ETA, structures/s and data wait: as one bar on a terminal, as a line every tenth of the run elsewhere.

    Args:
        stream: to write to; stderr if absent.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._on_terminal = self._stream.isatty()
        self._bar: tqdm[Any] | None = None
        self._latest: dict[str, float] = {}
        self._first_step = self._next_line = 0

    def start(self, description: RunDescription) -> None:
        """Show the bar."""
        self.open(description.config.run.name, description.first_step, description.total_steps)

    def open(self, name: str, first_step: int, total_steps: int) -> None:
        """Show a bar for a run that is known by name and length alone."""
        self._bar = (LiveBar if self._on_terminal else tqdm)(
            total=total_steps,
            initial=first_step,
            desc=name,
            unit="step",
            file=self._stream if self._on_terminal else io.StringIO(),
            ascii=not self._on_terminal,
            dynamic_ncols=self._on_terminal,
        )
        self._first_step = self._next_line = first_step

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Move the bar to this step; steps of earlier starts, which trackers may have missed, are none of its."""
        if self._bar is None or step <= self._first_step:
            return
        self._latest.update(metrics)
        self._bar.set_postfix_str(_progress_text(self._latest), refresh=False)
        self._bar.update(step - self._bar.n)
        if not self._on_terminal and step >= self._next_line:
            print(self._bar, file=self._stream, flush=True)
            self._next_line = step + max(1, (self._bar.total or 0) // 10)

    def finish(self, artifacts: Sequence[Path]) -> None:  # noqa: ARG002 (nothing to show)
        """Close the bar."""
        self.abort()

    def abort(self) -> None:
        """Close the bar where it stands."""
        if self._bar is None:
            return
        if not self._on_terminal and self._bar.n > self._next_line - max(1, (self._bar.total or 0) // 10):
            print(self._bar, file=self._stream, flush=True)
        self._bar.close()
        self._bar = None


def _progress_text(metrics: Mapping[str, float]) -> str:
    parts = []
    if "time/structures_per_second" in metrics:
        parts.append(f"{metrics['time/structures_per_second']:.1f} structures/s")
    if "time/data_wait" in metrics:
        parts.append(f"wait {100 * metrics['time/data_wait']:.0f} %")
    for split in ("train", "validation"):
        if f"{split}/energy_mae" in metrics and f"{split}/force_mae" in metrics:
            energy, force = metrics[f"{split}/energy_mae"], metrics[f"{split}/force_mae"]
            parts.append(f"{split} {1000 * energy:.0f} meV/atom {1000 * force:.0f} meV/Å")
    return ", ".join(parts)
