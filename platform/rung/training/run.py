"""A run on disk: its folder, what may change between two starts of it, and its summary."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

from chgnet.model import CHGNet

from rung.config.secrets import redacted_values
from rung.config.tree import TrainConfig
from rung.model.weights import from_state
from rung.training.checkpoint import CheckpointError, CheckpointStore
from rung.training.metrics import Metrics

SUMMARY_NAME = "summary.json"
MODEL_NAME = "model.pth.tar"
CONFIG_NAME = "config.yaml"
REFERENCE_NAME = "reference.json"
INITIAL_NAME = "initial.pth.tar"
DESCRIPTION_NAME = "description.json"
"""What a run tells those who watch it about itself."""

SOURCE_NAME = "source.json"
"""Which code each start of the run had."""

_FREE_TO_CHANGE = (
    "run.storage",
    "run.allow_changes",
    "data.path",
    "data.workers",
    "data.prefetch",
    "data.cache",
    "batch.max_bonds",
    "batch.max_angles",
    "training.log_every",
    "training.checkpoint_every",
    "training.checkpoint_minutes",
    "training.keep",
    "training.profile",
    "faults.",
    "launcher.",
    "tracking.",
)
"""Keys that do not decide which model comes out. The data set itself is checked by its manifest's hash."""


_DATA_KEY = "data.manifest"
"""Stands for the data set in what may change."""


class RunFolder:
    """Paths of a run: storage / name is its identity."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """The folder of the run that a config describes."""
        return cls(Path(config.run.storage).expanduser().absolute() / config.run.name)

    def checkpoints(self, keep: int = 1) -> CheckpointStore:
        """The run's checkpoints."""
        return CheckpointStore(self.path / "checkpoints", keep)

    def load_model(self, which: Literal["best", "last"]) -> CHGNet:
        """Rebuild the model of the best or the last checkpoint, with averaged weights where the run keeps an average.

        Raises:
            CheckpointError: as `load_state`.
        """
        return model_of(self.load_state(which))

    def load_state(self, which: Literal["best", "last"]) -> dict[str, Any]:
        """Load the state of the best or the last checkpoint; where none is marked as the best, of the last.

        Raises:
            CheckpointError: the folder holds no run, or the checkpoint is absent, damaged or of a newer format.
        """
        store = self.checkpoints()
        steps = store.steps()
        if not steps:
            raise CheckpointError(f"{self.path} holds no checkpoint: it is no run's folder, or the run has not begun")
        best = store.best_step()
        return store.load(best if which == "best" and best is not None else steps[-1])

    @property
    def stop_request(self) -> Path:
        """File whose presence asks the ranks to checkpoint and leave, for launchers that cannot send them a signal."""
        return self.path / ".stop"

    def write(self, name: str, text: str) -> Path:
        """Write one of the run's small files, whole or not at all.

        Raises:
            OSError: the storage refused.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / name
        temporary = path.with_name(f".{name}.tmp")
        temporary.write_text(text)
        temporary.replace(path)
        return path


@dataclass(frozen=True)
class TrainSummary:
    """The figures of a run. Errors are in eV/atom, eV/Å, GPa and μB."""

    run: str
    """The run's folder."""
    model: str
    """The best model, as a file that plain chgnet loads."""
    steps: int
    """Finished global steps."""
    epochs: float
    """Finished; of a run that was stopped not a whole number."""
    num_parameters: int
    num_trainable: int
    """Parameters that are updated, those of the second functional among them."""
    best_step: int
    """Global step of the best checkpoint; 0 is the initial model."""
    completed: bool
    """Whether all steps were done; a run that was asked to stop has not."""
    num_records: Mapping[str, int] = field(default_factory=dict)
    """Records of each split."""
    zero_step: Mapping[str, Metrics] = field(default_factory=dict)
    """Errors before the first step, by split: what the initial weights and the reference give."""
    best: Mapping[str, Metrics] = field(default_factory=dict)
    """Errors of the best checkpoint, by split."""
    structures_per_second: float = 0.0
    """Of the last steps that were logged, all ranks together."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a summary.json."""
        return cls(**json.loads(path.read_text()))


def model_of(state: Mapping[str, Any]) -> CHGNet:
    """The model in a checkpoint's state, on the CPU: averaged weights where there are any, else the trained ones."""
    model = from_state(state["model"], origin="checkpoint")
    if state["average"] is not None:
        model.load_state_dict(state["average"]["average"], strict=False)
    return model


def check_same_run(config: TrainConfig, manifest_hash: str, state: Mapping[str, Any], folder: Path) -> list[str]:
    """Refuse to resume a run whose config or data would falsify it, unless `run.allow_changes` names the difference.

    Returns:
        The differences that are allowed, each with both values.

    Raises:
        ValueError: names each key with both values; or `run.allow_changes` names what is no key.
    """
    saved = _flatten(state["config"]) | {_DATA_KEY: state["manifest_hash"][:12]}
    current = _flatten(redacted_values(config.model_dump(mode="json"))) | {_DATA_KEY: manifest_hash[:12]}
    allowed = config.run.allow_changes
    unknown = [name for name in allowed if not any(_covers(name, key) for key in current)]
    if unknown:
        raise ValueError(
            f"run.allow_changes names {', '.join(unknown)}, which is no key: give keys such as optimizer.learning_rate,"
            f" sections such as loss, or {_DATA_KEY}"
        )
    changed = {
        key: f"{key}: {saved.get(key)!r} then, {current.get(key)!r} now"
        for key in sorted(saved.keys() | current.keys())
        if saved.get(key) != current.get(key) and not key.startswith(_FREE_TO_CHANGE)
    }
    refused = [key for key in changed if not any(_covers(name, key) for name in allowed)]
    if refused:
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(changed[key] for key in refused)}."
            " Give the new run its own run.name, restore the settings to resume the old one, or allow what you know to"
            f" be right with run.allow_changes: [{', '.join(refused)}]"
        )
    return list(changed.values())


def _covers(name: str, key: str) -> bool:
    return key == name or key.startswith(f"{name}.")


@cache
def package_versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("rung", "torch", "chgnet", "numpy", "numba", "pymatgen", "lmdb", "ray", "mlflow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
