"""The output of a batch prediction: finished chunks stay finished, and the result appears whole or not at all.

While the work goes on, `parts/` holds one file for each finished chunk, in order and without gaps; each is written by
another name and renamed. So a process may be killed at any moment and the next one goes on behind the last part.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from rung.config.inference import PredictionFormat
from rung.inference.tables import JOIN, WRITE, json_lines
from rung.inference.work import Failure, Outcome, Predicted

FAILURES_NAME: Final = "failures.jsonl"
SUMMARY_NAME: Final = "summary.json"
_PLAN_NAME: Final = "plan.json"


class OutputError(ValueError):
    """The output folder holds something else."""


@dataclass(frozen=True)
class PredictSummary:
    """What a batch prediction left."""

    predictions: str
    """The file of predictions."""
    failures: str
    """The file that lists every structure without predictions, and why."""
    model: str
    model_sha256: str
    """Of its weights (`rung.model.weights.weights_hash`), wherever they are stored."""
    num_structures: int
    num_predicted: int
    failed: Mapping[str, int]
    """Number of structures without predictions, by reason."""
    seconds: float
    """Of this start."""
    structures_per_second: float
    """Of this start."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a summary.json."""
        return cls(**json.loads(path.read_text()))


class PredictionStore:
    """Parts of a prediction on disk.

    Args:
        folder: the output.
        form: of the file of predictions.
        plan: what decides the predictions: model, input, properties, chunks.

    Raises:
        OutputError: the folder holds predictions by another plan, or something else.
    """

    def __init__(self, folder: Path, form: PredictionFormat, plan: Mapping[str, Any]) -> None:
        self._form: PredictionFormat = form
        self.folder = folder
        self.predictions = folder / f"predictions.{form}"
        self.failures = folder / FAILURES_NAME
        self._parts = folder / "parts"
        self._check_plan(dict(plan) | {"format": form})
        self._parts.mkdir(exist_ok=True)
        self.done = 0
        """Chunks that are finished."""
        while self._part(self.done).exists():
            self.done += 1
        self.num_failed = 0
        """Structures without predictions, of this start."""

    def finished(self) -> PredictSummary | None:
        """The summary, if the prediction is complete."""
        path = self.folder / SUMMARY_NAME
        if not path.exists():
            return None
        shutil.rmtree(self._parts, ignore_errors=True)  # of a process that was killed right after the summary
        return PredictSummary.read(path)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Store the outcomes of the next chunk."""
        failures = [asdict(outcome) for outcome in outcomes if isinstance(outcome, Failure)]
        _write_whole(self._failures_of(self.done), json_lines(failures))
        part = self._part(self.done)
        temporary = part.with_name(f".{part.name}")
        WRITE[self._form]([outcome for outcome in outcomes if isinstance(outcome, Predicted)], temporary)
        _replace(temporary, part)  # last: it is what says that the chunk is finished
        self.done += 1
        self.num_failed += len(failures)

    def join(self) -> Counter[str]:
        """Make one file of all parts.

        Returns:
            failures by reason.
        """
        temporary = self.predictions.with_name(f".{self.predictions.name}")
        JOIN[self._form]((self._part(number) for number in range(self.done)), temporary)
        _replace(temporary, self.predictions)
        text = "".join(self._failures_of(number).read_text() for number in range(self.done))
        _write_whole(self.failures, text)
        return Counter(json.loads(line)["reason"] for line in text.splitlines())

    def finish(self, summary: PredictSummary) -> None:
        """Write the summary and remove the parts."""
        _write_whole(self.folder / SUMMARY_NAME, json.dumps(asdict(summary), indent=1, ensure_ascii=False))
        shutil.rmtree(self._parts)

    def _check_plan(self, plan: dict[str, Any]) -> None:
        path = self.folder / _PLAN_NAME
        if not path.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise OutputError(f"output {self.folder} is not empty and holds no predictions: set another output")
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_whole(path, json.dumps(plan, indent=1))
            return
        known = json.loads(path.read_text())
        other = [name for name in plan if known.get(name) != plan[name]]
        if other:
            raise OutputError(
                f"output {self.folder} holds predictions that differ in {', '.join(other)}: set another output, or"
                " delete the folder to predict anew"
            )

    def _part(self, number: int) -> Path:
        return self._parts / f"part-{number:06}.{self._form}"

    def _failures_of(self, number: int) -> Path:
        return self._parts / f"part-{number:06}.{FAILURES_NAME}"


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    _replace(temporary, path)


def _replace(temporary: Path, path: Path) -> None:
    """Give a complete file its name, once its content is on disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
