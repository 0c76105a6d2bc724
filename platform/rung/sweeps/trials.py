"""The trials of a sweep, each in a folder that is also its run's: what it is, and how far it came.

The folders are the sweep's whole memory. A trial's number, and what it was told to do, are written before it starts, so
that a sweep that was killed goes on with the same trials.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from rung.config.load import ConfigError, apply_overrides
from rung.config.search import MUTABLE
from rung.config.secrets import redacted_values
from rung.config.tree import FinetuneConfig, SweepConfig
from rung.sweeps.draw import Point, grid, random_point, tpe_point
from rung.training.run import RunFolder

Role = Literal["untouched", "recipe", "search"]
State = Literal["running", "waiting", "finished", "pruned", "failed"]
"""A trial waits between two stages, of a population or of successive halving."""

UNTOUCHED: Point = {
    "training.epochs": 0,
    "model.freeze_depth": 0,
    "reference.mode": "refit",
    "replay.path": None,
}
"""The pretrained model as it is, with the reference of the new data set: zero steps."""

RECIPE: Point = {
    "model.freeze_depth": 0,
    "reference.mode": "refit",
    "loss.kind": "huber",
    "loss.delta": 0.1,
    "loss.energy": 3.0,
    "loss.force": 1.0,
    "loss.stress": 0.1,
    "loss.magmom": 1.0,
    "optimizer.kind": "adam",
    "optimizer.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": None,
    "optimizer.ema_decay": None,
    "schedule.kind": "cosine",
    "schedule.warmup": 0.0,
    "schedule.final": 0.01,
    "transfer.layer_decay": 1.0,
    "transfer.unfreeze_every": 0,
    "transfer.l2_sp": 0.0,
    "replay.path": None,
}
"""Method 4 of Huang et al. (arXiv 2504.05565), but for the number of epochs and the batch, which are the sweep's."""

_BASELINES: tuple[tuple[Role, Point], ...] = (("untouched", UNTOUCHED), ("recipe", RECIPE))
_TRIAL_NAME = "trial.json"


@dataclass(frozen=True)
class Trial:
    """One trial, as its trial.json says."""

    number: int
    role: Role
    values: Mapping[str, Any]
    """What it changes of the sweep's own configuration, by dotted key."""
    state: State = "running"
    error: str = ""
    started: float = 0.0
    """When it was first started, s since 1970."""
    seconds: float = 0.0
    """Wall time of all its starts together."""
    starts: int = 0
    generation: int = 0
    """Stages behind it: generations of a population, or rungs of successive halving."""
    takeovers: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """Where it went on as a copy of another trial: `epochs`, `source` (its number), and the `values` given up."""
    probe: Mapping[str, float] = field(default_factory=dict)
    """Error of its best model on the probe set: `probe_force_mae`, eV/Å."""

    @property
    def name(self) -> str:
        """Name of its run."""
        return trial_name(self.number)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state not in ("running", "waiting")


def trial_name(number: int) -> str:
    """Name of the run of a trial."""
    return f"trial-{number:03}"


class Trials:
    """All trials of a sweep so far."""

    def __init__(self, config: SweepConfig) -> None:
        """Open a sweep's folder.

        Raises:
            ValueError: the space cannot be searched as asked, or a trial.json is damaged.
        """
        self._config = config
        self._base = config.base()
        self._space = config.dimensions
        self.folder = RunFolder.of(config).path / "trials"
        self._grid = grid(self._space, config.run.seed) if config.sweep.searcher == "grid" else []
        searched = min(config.sweep.trials, len(self._grid)) if self._grid else config.sweep.trials
        self.total = len(_BASELINES) + searched
        self._known = {trial.number: trial for trial in map(_read, sorted(self.folder.glob(f"*/{_TRIAL_NAME}")))}

    def __getitem__(self, number: int) -> Trial:
        return self._known[number]

    def known(self) -> list[Trial]:
        """Trials that were started so far, by number."""
        return [self._known[number] for number in sorted(self._known)]

    def to_do(self) -> list[int]:
        """Numbers of the trials that have not ended, those begun first."""
        return sorted(
            (number for number in range(self.total) if number not in self._known or not self._known[number].ended),
            key=lambda number: (number not in self._known, number),
        )

    def propose(self, number: int, taught: Sequence[tuple[Point, Sequence[float]]]) -> Trial:
        """The trial of a number: as it was proposed before, or else drawn now and written down.

        Args:
            number: of the trial.
            taught: points and objectives of the trials that do not run; tpe goes by them.
        """
        if number not in self._known:
            role, values = _BASELINES[number] if number < len(_BASELINES) else ("search", self._draw(number, taught))
            self.write(Trial(number, role, dict(values), started=time.time()))
        return self._known[number]

    def _draw(self, number: int, taught: Sequence[tuple[Point, Sequence[float]]]) -> Point:
        seed, searched = self._config.run.seed, number - len(_BASELINES)
        match self._config.sweep.searcher:
            case "grid":
                return self._grid[searched]
            case "random":
                return random_point(self._space, seed, searched)
            case "tpe":
                running = [dict(one.values) for one in self.known() if one.role == "search" and one.state == "running"]
                return tpe_point(self._space, seed, searched, taught, running)

    def config_of(self, trial: Trial) -> FinetuneConfig:
        """The run of a trial.

        Raises:
            ConfigError: the trial's values contradict each other or the rest of the configuration.
        """
        place: Point = {"run.storage": str(self.folder), "run.name": trial.name}
        if trial.takeovers:
            place["run.allow_changes"] = ["run.name", *MUTABLE]
        return apply_overrides(self._base, {**trial.values, **place}, overrides_from=trial.name)

    def update(self, number: int, **changes: Any) -> Trial:
        """Change what is known of a trial, and write it down."""
        self.write(replace(self._known[number], **changes))
        return self._known[number]

    def write(self, trial: Trial) -> None:
        """Write a trial's trial.json, whole or not at all."""
        self._known[trial.number] = trial
        RunFolder(self.folder / trial.name).write(_TRIAL_NAME, json.dumps(asdict(trial), indent=1))

    def check_draws(self, number: int = 64) -> None:
        """Draw points ahead and check that each is a configuration.

        Raises:
            ValueError: one is none; keys that contradict each other need a condition (`when`).
        """
        seed = self._config.run.seed
        points = self._grid or [random_point(self._space, seed, at) for at in range(number)]
        for point in points:
            try:
                apply_overrides(self._base, point, overrides_from="sweep.space")
            except ConfigError as error:
                raise ValueError(
                    f"the space holds {point}, which is no configuration: {error}. Give one of these keys a condition"
                    " (when), or take values out"
                ) from error


def _read(path: Path) -> Trial:
    try:
        return Trial(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete its folder to run this trial again") from error


class SweepFolder:
    """The folder of a whole sweep, and what must stay the same between two starts of it."""

    _FREE = (
        "sweep.trials",
        "sweep.concurrent",
        "sweep.registered_model",
        "run.storage",
        "launcher",
        "tracking",
        "data.workers",
    )

    def __init__(self, config: SweepConfig) -> None:
        self.folder = RunFolder.of(config)
        self.path = self.folder.path
        self._config = config

    @classmethod
    def opened(cls, config: SweepConfig) -> Self:
        """Open a new sweep, or one to go on with.

        Raises:
            ValueError: the folder holds a sweep with other settings, or a run.
        """
        opened = cls(config)
        opened.check()
        return opened

    def check(self) -> None:
        """Refuse a folder that holds something else; note the settings of a new one.

        Raises:
            ValueError: names what is there.
        """
        path = self.path / "sweep.json"
        if (self.path / "checkpoints").exists():
            raise ValueError(f"{self.path} holds a run: give the sweep a run.name of its own")
        now = redacted_values(self._config.model_dump(mode="json"))
        if path.exists():
            then = json.loads(path.read_text())
            changed = [key for key in _changed(then, now) if not key.startswith(self._FREE)]
            if changed:
                raise ValueError(
                    f"{self.path} holds a sweep with other {', '.join(changed)}: give the new sweep its own run.name,"
                    " or restore the settings to go on with the old one"
                )
        self.folder.write(path.name, json.dumps(now, indent=1))


def _changed(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    changed: list[str] = []
    for key in sorted(then.keys() | now.keys()):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and key != "space":
            changed += _changed(old, new, f"{prefix}{key}.")
        elif old != new:
            changed.append(prefix + key)
    return changed
