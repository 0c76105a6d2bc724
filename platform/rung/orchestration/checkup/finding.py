"""What one check found, and what all of them look at."""

from dataclasses import dataclass, field
from typing import Literal

from rung.config.sections import DataConfig, LauncherConfig, ModelConfig, RunConfig, TrackingConfig

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status: ok; note for what a user should know; problem for what makes runs fail.
        found: what is there, in one sentence.
        advice: what to do; empty where all is well.
    """

    status: Status
    found: str
    advice: str = ""


def ok(found: str) -> Finding:
    """All is well."""
    return Finding("ok", found)


def note(found: str, advice: str = "") -> Finding:
    """Runs work, but the user should know."""
    return Finding("note", found, advice)


def problem(found: str, advice: str) -> Finding:
    """Runs would fail, or not do what they were asked to."""
    return Finding("problem", found, advice)


def refusal(error: Exception, advice: str) -> Finding:
    """A problem in the words of a job's own error, which ends in what to do; other errors need advice."""
    found, colon, own = str(error).rpartition(": ")
    return problem(found, own) if colon and isinstance(error, ValueError) else problem(str(error), advice)


@dataclass(frozen=True)
class Subject:
    """What is looked at besides the machine: the parts of a job's config that it has, defaults elsewhere.

    Attributes:
        kind: of job that the config is for; empty without a config.
        output: folder that the job writes into, and the key that names it.
        data: prepared data sets by the key that names them.
        sources: local raw files by the key that names them.
        model: what a training run starts from; None for other jobs.
        launcher: who starts the ranks.
        tracking: of metrics.
        storage: folder where MLflow's own database lies.
        complaint: what is wrong with the config itself; empty where nothing is.
    """

    kind: str = ""
    output: tuple[str, str] = ("run.storage", RunConfig().storage)
    data: dict[str, DataConfig] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    model: ModelConfig | None = None
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    storage: str = RunConfig().storage
    complaint: str = ""
