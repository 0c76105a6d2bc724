"""One start of a run: its data, model and progress on this rank, and its way to storage and sinks."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray
from torch import Tensor

from rung.config.secrets import redacted
from rung.config.tree import TrainConfig
from rung.data.codec import DamagedShardError
from rung.data.dataset import ShardDataset
from rung.data.sampler import StepSampler
from rung.data.staging import staged
from rung.model.memory import is_out_of_memory
from rung.model.reference import train_reference
from rung.model.support import cutoffs_of
from rung.model.weights import from_state, load
from rung.training.context import TrainContext
from rung.training.distributed import gather_text, wait_for_all
from rung.training.elements import ElementSums
from rung.training.gentle import GentleTransfer
from rung.training.loss import loss_weights
from rung.training.metrics import ErrorSums, Metrics, errors_from_sums
from rung.training.replay import Replay, open_replay, target_batch
from rung.training.resilience.storage import insist
from rung.training.resilience.writer import CheckpointWriter
from rung.training.run import INITIAL_NAME, RunFolder
from rung.training.sinks import INCIDENTS_NAME, JsonLinesFile, JsonLinesSink, MetricSink
from rung.training.state import Origin, Progress, capture
from rung.training.step import TrainStep
from rung.training.validate import Validator

logger = logging.getLogger(__name__)

HELD_OUT = ("validation", "test")

_Sums = TypeVar("_Sums", ErrorSums, ElementSums)


class MemoryBudgetError(RuntimeError):
    """A rank cannot hold a single structure; raised on every rank."""


class Session:
    """What the parts of the loop share.

    Args:
        config: the run.
        context: this rank.
        sinks: receivers of metrics besides the run's own file; used on rank 0.

    Attributes:
        records: (n,) ids of each split; of the training materials `data.subset`.
        step, progress: there once the session is open.
        sampler, validator: of the work as it was planned last.

    Raises:
        ValueError: the data set cannot be read, has no training records, or `replay.share` leaves no whole structure of
            one functional.
    """

    step: TrainStep
    progress: Progress
    sampler: StepSampler
    validator: Validator

    def __init__(self, config: TrainConfig, context: TrainContext, sinks: Sequence[MetricSink]) -> None:
        self.config = config
        self.context = context
        self.folder = RunFolder.of(config)
        self.store = self.folder.checkpoints(config.training.keep)
        self.writer = CheckpointWriter(self.store, config.faults.storage_patience)
        self.file = JsonLinesSink()
        self.incidents = JsonLinesFile(self.folder.path / INCIDENTS_NAME)
        self.sinks: list[MetricSink] = [self.file, *sinks] if context.rank == 0 else []
        self.dataset = ShardDataset(staged(config.data))
        self._origin = Origin.of(config, self.dataset.manifest_hash)
        self.records = {split: self.dataset.select(split) for split in HELD_OUT}
        self.records["train"] = self.dataset.select("train", config.data.subset)
        if len(self.records["train"]) == 0:
            raise ValueError(
                f"{config.data.path} has no training records: prepare more data, lower split.* there, or"
                " raise data.subset"
            )
        self._replay: Replay | None = None
        self.plan_work(1.0, [])

    @property
    def total_steps(self) -> int:
        """Global steps of the whole run."""
        return self.config.training.epochs * self.sampler.steps_per_epoch

    def plan_work(self, budget_factor: float, left_out_shards: Sequence[str]) -> None:
        """Spread the data over ranks and micro-batches, that of the second functional too once it is open.

        Args:
            budget_factor: budgets of the micro-batches over the config's.
            left_out_shards: shards to do without, as in `Progress`.
        """
        batch = target_batch(self.config, budget_factor)
        left_out = self.dataset.records_of(left_out_shards)  # a name with the prefix of replay is none of these
        train, seed = self.records["train"], self.config.run.seed
        context = self.context
        sampler = StepSampler(self.dataset.index, train, batch, seed, context.rank, context.world_size)
        self.sampler = sampler.without(left_out)
        self.validator = Validator(self.dataset, context, self.config.data, batch)
        self._held_out = {split: np.setdiff1d(self.records[split], left_out) for split in HELD_OUT}
        if self._replay is not None:
            self._replay.plan_work(budget_factor, left_out_shards)

    def open(self, model: CHGNet, progress: Progress, anchor: Mapping[str, Tensor]) -> None:
        """Put the model on the device, freeze what the config freezes, and set up the update.

        Args:
            model: initial or resumed.
            progress: of the run.
            anchor: initial weights by name, for `transfer.l2_sp`.

        Raises:
            ValueError: the model's cutoffs are not the data's, it has no such `model.freeze_depth`, nothing is
                trainable, or the second data set cannot be used.
        """
        self.dataset.check_cutoffs(cutoffs_of(model))
        self.model = model.to(self.context.device)
        anchor = {name: value.clone() for name, value in anchor.items()}
        gentle = GentleTransfer(self.model, self.config.model, self.config.transfer, anchor)
        train_reference(self.model, self.config.reference.mode == "trainable")
        self._replay = replay = open_replay(self.config, self.model, self.context)
        if replay is not None:
            replay.plan_work(progress.budget_factor, progress.left_out_shards)
        self.step = TrainStep(self.model, self.config, self.context, gentle, replay)
        self.progress = progress

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state.

        Raises:
            ValueError: as `open`; or the initial weights for `transfer.l2_sp` cannot be read.
        """
        progress = Progress(**state["progress"])
        self.plan_work(progress.budget_factor, progress.left_out_shards)
        if progress.closed_epochs is None:
            progress.closed_epochs = progress.step // self.sampler.steps_per_epoch
        pulled = self.config.transfer.l2_sp > 0
        anchor = load(self.folder.path / INITIAL_NAME).state_dict() if pulled else {}
        self.open(from_state(state["model"], origin="checkpoint"), progress, anchor)
        if self.step.replay is not None:
            self.step.replay.load_state_dict(state["replay"])
        self.step.optimizer.load_state_dict(state["optimizer"])
        for group in self.step.optimizer.param_groups:
            group["weight_decay"] = self.config.optimizer.weight_decay  # which run.allow_changes may have changed
        if self.step.average is not None:
            self.step.average.load_state_dict(state["average"])
        if self.context.rank == 0:  # the saved sums are those of all ranks together
            self.step.errors.add(state["error_sums"])

    def newest_state(self) -> dict[str, Any] | None:
        """The state of the newest whole checkpoint, the same on every rank whatever each of them sees of the storage.

        Raises:
            CheckpointError: a newer Rung wrote it, or this rank cannot read what rank 0 could.
            StorageError: a checkpoint before it could not be written.
        """
        if self.context.rank == 0:
            self.writer.wait()
            state = self.store.newest()
            gather_text("" if state is None else str(state["progress"]["step"]))
            return state
        step = gather_text("")[0]
        return self.store.load(int(step)) if step else None

    def errors(self, split: str, model: CHGNet | None = None) -> Metrics:
        """Errors on one split of a model, by default of the one in training as it stands (`rung.training.metrics`).

        Raises:
            DamagedShardError: a shard cannot be read, and `faults.damaged_shards` is refuse.
            MemoryBudgetError: a rank cannot hold a single structure.
        """
        model, loss = model or self.model, self.config.loss
        sums = self._evaluated(split, lambda records: self.validator.sums(model, records, loss))
        return errors_from_sums(sums.reduced(), loss_weights(loss))

    def errors_by_element(self, model: CHGNet) -> dict[str, dict[str, Metrics]]:
        """Errors by element on the test materials, or on validation where there are none, under the split's name.

        Raises:
            DamagedShardError, MemoryBudgetError: as `errors`.
        """
        split = "test" if len(self._held_out["test"]) else "validation"
        return {split: self._evaluated(split, lambda records: self.validator.element_sums(model, records)).errors()}

    def _evaluated(self, split: str, evaluate: Callable[[NDArray[np.int64]], _Sums]) -> _Sums:
        """This rank's sums over its share of a split; done again on all ranks where one lacked memory or records."""
        while True:
            records = self._held_out[split]
            damage, sums, short = None, None, 0
            try:
                sums = evaluate(records)
            except DamagedShardError as error:
                damage = self.bearable(error)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                short = self.validator.largest_batch(records)
            where = f"the evaluation after step {self.progress.step}"
            if not (self.leave_out(damage) or self.lower_budget(short, where)) and sums is not None:
                return sums

    def bearable(self, damage: DamagedShardError) -> DamagedShardError:
        """The same, unless the config does not put up with it.

        Raises:
            DamagedShardError: the config does not.
        """
        if self.config.faults.damaged_shards == "refuse":
            raise damage
        return damage

    def leave_out(self, damage: DamagedShardError | None) -> bool:
        """Agree with all ranks on shards to do without, given what this rank could not read; whether there are any."""
        if self.config.faults.damaged_shards == "refuse":
            return False
        left_out, found = self.progress.left_out_shards, False
        for rank, text in enumerate(gather_text(f"{damage.shard} {damage}" if damage else "")):
            shard, _, reason = text.partition(" ")
            if shard and shard not in left_out:
                left_out.append(shard)
                found = True
                said = f"rank {rank} cannot read shard {shard} ({reason}). Training goes on without its records"
                self.incident("damaged shard", f"{said} (faults.damaged_shards: skip)", shard=shard)
        if found:
            self.plan_work(self.progress.budget_factor, left_out)
        return found

    def lower_budget(self, structures: int, where: str) -> bool:
        """Agree with all ranks on half of what each evaluates at once if one ran out of memory; whether one did.

        Args:
            structures: in the largest micro-batch of this rank if it ran out of memory; else 0.
            where: this happened, for messages.

        Raises:
            MemoryBudgetError: nothing smaller is possible.
        """
        short = {rank: int(text) for rank, text in enumerate(gather_text(f"{structures or ''}")) if text}
        if not short:
            return False
        who = f"rank {', '.join(map(str, short))} ran out of memory in {where}"
        if min(short.values()) == 1:
            raise MemoryBudgetError(
                f"{who} with a single structure at a time: use a device with more memory, fewer ranks per device, or"
                " leave such large structures out"
            )
        if self.context.device.type == "cuda":
            torch.cuda.empty_cache()
        progress, batch = self.progress, self.config.batch
        progress.budget_factor /= 2
        self.plan_work(progress.budget_factor, progress.left_out_shards)
        self.incident(
            "out of memory",
            f"{who}. All ranks go on with half of what they evaluated at once: batch.max_bonds"
            f" {round(batch.max_bonds * progress.budget_factor)}, batch.max_angles"
            f" {round(batch.max_angles * progress.budget_factor)}; the global batch stays as it is",
            ranks=list(short),
        )
        return True

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with its averaged weights, where the run keeps an average."""
        average = self.step.average
        if average is not None:
            average.swap()
        try:
            yield
        finally:
            if average is not None:
                average.swap()

    def checkpoint(self, validation: Metrics) -> None:
        """Hand the state to the writer; without validation records the newest checkpoint counts as the best.

        Args:
            validation: errors on the validation records; empty within an epoch.

        Raises:
            StorageError: an earlier one could not be written.
        """
        loss = validation.get("loss", math.inf)
        best = loss < self.progress.best_loss or len(self.records["validation"]) == 0
        if best:
            self.progress.best_loss = loss
        error_sums = self.step.errors.reduced()
        self.step.errors.clear()
        if self.context.rank == 0:
            self.step.errors.add(error_sums)  # as after a resume: sums in another order would differ in the last digit
            state = capture(self.step, self.progress, error_sums, self._origin)
            self.writer.submit(state, self.progress.step, validation, best=best)

    def written(self) -> None:
        """Return when all checkpoints are on storage, on every rank.

        Raises:
            StorageError: on rank 0, one could not be written.
        """
        if self.context.rank == 0:
            self.writer.wait()
        wait_for_all()

    def write(self, name: str, text: str) -> None:
        """Write one of the run's small files, with patience.

        Raises:
            StorageError: the storage refused for longer than `faults.storage_patience`.
        """
        what = str(self.folder.path / name)
        insist(lambda: self.folder.write(name, text), what, self.config.faults.storage_patience)

    def log(self, metrics: Metrics) -> None:
        """Send metrics of the current step to the sinks."""
        for sink in self.sinks:
            sink.log(metrics, self.progress.step)

    def incident(self, kind: str, text: str, **facts: Any) -> None:
        """Tell the user of something out of the ordinary, and keep it with its facts in the run's folder; on rank 0."""
        if self.context.rank == 0:
            logger.warning("%s", text)
            self.incidents.add({"step": self.progress.step, "kind": kind, "text": redacted(text), **facts})

    def abort(self) -> None:
        """Leave sinks and storage as orderly as they can be left when the run fails."""
        self.writer.close(seconds=10)
        self.incidents.close(patience=0)
        for sink in self.sinks:
            sink.abort()
