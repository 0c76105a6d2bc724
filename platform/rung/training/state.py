"""The state of a run: all that a start needs in order to go on as if nothing had happened.

There is no state of random numbers in it, because nothing draws any once the initial weights are made: the order of the
data is a function of (seed, epoch, step), and the networks have no dropout. For the same reason there is none of a
loader or sampler: `progress.step` is the place in the stream of data.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch

from rung.config.secrets import redacted_values
from rung.config.tree import TrainConfig
from rung.model.weights import portable_state
from rung.training.metrics import Metrics
from rung.training.packing import PackedState, pack
from rung.training.run import package_versions
from rung.training.step import TrainStep


@dataclass
class Progress:
    """How far a run has come, and what it has been through."""

    reference: dict[str, Any]
    """How the elemental reference came about."""
    zero_step: dict[str, Metrics]
    """Errors before the first step, by split."""
    step: int = 0
    """Finished global steps."""
    closed_epochs: int | None = 0
    """Epochs that are validated; the last step of one may be saved before it is. None: all that are over."""
    best_loss: float = math.inf
    """Least loss on the validation records."""
    structures_per_second: float = 0.0
    """Of the last steps that were logged, all ranks together."""
    skipped: int = 0
    """Steps without an update, because the gradient was not finite."""
    rewinds: int = 0
    rate_factor: float = 1.0
    """Learning rate over the schedule's; lowered by every rewind."""
    budget_factor: float = 1.0
    """Micro-batches' budgets over the config's; lowered when a rank runs out of memory."""
    left_out_shards: list[str] = field(default_factory=list)
    """Names of shards that could not be read; those of the second data set with `rung.training.replay.PREFIX`."""
    changes: list[str] = field(default_factory=list)
    """Settings that were changed on the way, by `run.allow_changes`."""


@dataclass(frozen=True)
class Origin:
    """What a run is made from."""

    config: Mapping[str, Any]
    """As plain values, without secrets."""
    manifest_hash: str
    """sha256 of the data set's manifest."""

    @classmethod
    def of(cls, config: TrainConfig, manifest_hash: str) -> Self:
        """From a config and the hash of the data set's manifest."""
        return cls(redacted_values(config.model_dump(mode="json")), manifest_hash)


def capture(step: TrainStep, progress: Progress, error_sums: torch.Tensor, origin: Origin) -> PackedState:
    """Copy the state to host memory; later steps do not change it.

    Args:
        step: model, optimizer, average, and what the second functional has of its own.
        progress: of the run.
        error_sums: (4, 4) of `ErrorSums`, all ranks together, since they were last logged.
        origin: what the run is made from.
    """
    average = step.average
    return pack(
        {
            "model": portable_state(step.model),
            "optimizer": step.optimizer.state_dict(),
            "average": average.state_dict() if average is not None else None,
            "replay": step.replay.state_dict() if step.replay is not None else None,
            "error_sums": error_sums,
            "progress": asdict(progress),
            "config": origin.config,
            "manifest_hash": origin.manifest_hash,
            "versions": package_versions(),
        }
    )
