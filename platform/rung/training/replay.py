"""Training on two functionals at once: a second data set whose structures join every step.

The structures of both form one global batch, so each counts the same in the loss. The second functional has its own
reference, and with `replay.readout: own` its own readout (multi-fidelity); the layers below are shared. Which records
join a step is a function of the seed and the global step.

Replay against forgetting: Rolnick et al., NeurIPS 2019 (arXiv 1811.11682). Shared layers with a readout for each task:
Caruana, Mach. Learn. 28, 41 (1997).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from chgnet.model import CHGNet
from torch import Tensor, nn

from rung.config.sections import BatchConfig, DataConfig
from rung.config.tree import TrainConfig
from rung.data.batch import GraphBatch
from rung.data.codec import DamagedShardError
from rung.data.dataset import ShardDataset
from rung.data.loader import BatchLoader
from rung.data.reference import fit_reference
from rung.data.sampler import LabelCounts, StepPlan, StepSampler
from rung.data.staging import staged
from rung.model.companion import Readout, companion, load_own_state, own_parameters, own_state
from rung.model.reference import reference_of, set_reference
from rung.model.support import cutoffs_of
from rung.training.context import TrainContext
from rung.training.initial import load_model

PREFIX: Final = "replay/"
"""Before the names of this data set's shards, where those of both stand together."""
OWN: Final = "replay."
"""Before the names of weights that are this functional's alone, where those of both stand together."""


def target_batch(config: TrainConfig, budget_factor: float) -> BatchConfig:
    """The part of the global batch that comes from the target functional.

    Args:
        config: the run.
        budget_factor: budgets of the micro-batches over the config's.

    Raises:
        ValueError: `replay.share` leaves no whole structure of one of the two.
    """
    return _part(config, config.batch.structures - _replayed(config), budget_factor)


def open_replay(config: TrainConfig, model: CHGNet, context: TrainContext) -> "Replay | None":
    """The second data set of a run, if it has one; the model is on its device.

    Raises:
        ValueError: as `Replay`.
    """
    return None if config.replay.path is None else Replay(config, config.replay.path, model, context)


class Replay:
    """The second functional of a run: its records, and the model that predicts it.

    Its reference stays that of the initial weights; where these are random, it is fitted to its training records.

    Args:
        config: the run.
        path: of the prepared data.
        model: of the target functional, whose layers are shared.
        context: this rank.

    Raises:
        ValueError: the data cannot be read, have other cutoffs than the model or no training records, or
            `replay.share` leaves no whole structure of one of the two.
    """

    def __init__(self, config: TrainConfig, path: str, model: CHGNet, context: TrainContext) -> None:
        self._config = config
        self._context = context
        self._readout: Readout = config.replay.readout
        self._data = config.data.model_copy(update={"path": path, "subset": 1.0})
        self.dataset = ShardDataset(staged(DataConfig(**self._data.model_dump())))
        self.dataset.check_cutoffs(cutoffs_of(model))
        self._records = self.dataset.select("train")
        self.plan_work(1.0, ())
        self.model = companion(model, self._readout)

    def plan_work(self, budget_factor: float, left_out_shards: Sequence[str]) -> None:
        """Spread the records over ranks and micro-batches; steps that are asked for from now on are planned so.

        Args:
            budget_factor: budgets of the micro-batches over the config's.
            left_out_shards: shards to do without; those of the other data set have no `PREFIX`.
        """
        batch = _part(self._config, _replayed(self._config), budget_factor)
        seed, rank, world_size = self._config.run.seed + 1, self._context.rank, self._context.world_size
        mine = [name.removeprefix(PREFIX) for name in left_out_shards if name.startswith(PREFIX)]
        sampler = StepSampler(self.dataset.index, self._records, batch, seed, rank, world_size)
        self._sampler = sampler.without(self.dataset.records_of(mine))

    def begin(self) -> None:
        """Set the reference with which a new run begins.

        Raises:
            ValueError: the initial weights cannot be loaded, or no training record has an energy to fit it to.
        """
        if self._config.model.init == "none":
            energies = fit_reference(*self.dataset.compositions_and_energies(self._records)).energies
        else:
            energies = reference_of(load_model(self._config.model))
        set_reference(self.model, np.asarray(energies))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters that the target's model does not have, by name with the prefix `OWN`."""
        own = own_parameters(self.model, self._readout)
        return {OWN + name: parameter for name, parameter in own.items()}

    def steps(self, first: int) -> Iterator[tuple[StepPlan, list[GraphBatch]]]:
        """Plan and batches, on the device, of each global step from `first` on, without end.

        Raises:
            DamagedShardError: records cannot be read; its shard has the `PREFIX`.
        """
        try:
            for plan, batches in BatchLoader(self.dataset, self._plans(first), self._data):
                yield plan, [batch.to(self._context.device) for batch in batches]
        except DamagedShardError as error:
            raise DamagedShardError(str(error), PREFIX + error.shard) from error

    def state_dict(self) -> dict[str, Tensor]:
        """What is not shared with the target's model, on the CPU."""
        return own_state(self.model, self._readout)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` returned."""
        load_own_state(self.model, state)

    def _plans(self, first: int) -> Iterator[StepPlan]:
        epoch, step = divmod(first, self._sampler.steps_per_epoch)
        while True:
            yield from self._sampler.plans(epoch, step)
            epoch, step = epoch + 1, 0


def joined(plan: StepPlan, other: StepPlan) -> StepPlan:
    """The plan of a step whose loss is the mean over the labels of both data sets."""
    pairs = zip(plan.label_counts.in_target_order(), other.label_counts.in_target_order(), strict=True)
    return replace(plan, label_counts=LabelCounts(*(mine + theirs for mine, theirs in pairs)))


def replay_model_of(state: dict[str, Any], model: CHGNet) -> CHGNet:
    """The model of the second functional in a checkpoint's state, with averaged weights where there are any.

    Args:
        state: of the checkpoint.
        model: of the target functional in it.

    Raises:
        ValueError: the run had no second functional.
    """
    if not state.get("replay"):
        raise ValueError("this run was trained without replay.path, so it has one functional: set functional to target")
    twin = companion(model, state["config"]["replay"]["readout"])
    average = (state["average"] or {"average": {}})["average"]
    own = {name.removeprefix(OWN): value for name, value in average.items() if name.startswith(OWN)}
    load_own_state(twin, state["replay"] | own)
    return twin


def _part(config: TrainConfig, structures: int, budget_factor: float) -> BatchConfig:
    """A part of the global batch, and what a rank may hold of it at once."""
    budgets = {name: max(1, round(budget_factor * getattr(config.batch, name))) for name in ("max_bonds", "max_angles")}
    return config.batch.model_copy(update={"structures": structures, **budgets})


def _replayed(config: TrainConfig) -> int:
    """Structures of the global batch that come from the second functional."""
    if config.replay.path is None:
        return 0
    replayed = round(config.replay.share * config.batch.structures)
    if not 0 < replayed < config.batch.structures:
        raise ValueError(
            f"replay.share {config.replay.share} of batch.structures {config.batch.structures} is {replayed}"
            " structures: raise batch.structures, or choose a share that leaves some of both"
        )
    return replayed
