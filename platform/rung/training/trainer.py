"""The training loop: one for pretraining and fine-tuning, the same under every launcher.

What is trained on, in which order and at which rate is a function of (seed, epoch, global step). A run can be killed at
any moment; the next start with the same storage and name goes on from the newest whole checkpoint.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from chgnet.model import CHGNet
from torch import Tensor

from rung.config.load import to_yaml
from rung.config.tree import TrainConfig
from rung.data.dataset import ShardDataset
from rung.data.loader import BatchLoader
from rung.data.sampler import StepSampler
from rung.data.staging import staged
from rung.model.reference import prepare_reference
from rung.model.weights import from_state, load, portable_state, save_model
from rung.training.context import TrainContext
from rung.training.distributed import wait_for_all
from rung.training.gentle import GentleTransfer
from rung.training.initial import initial_model
from rung.training.loss import loss_weights
from rung.training.metrics import Metrics, errors_from_sums
from rung.training.optimizer import learning_rate
from rung.training.profiling import StepTracer
from rung.training.replay import joined, open_replay, target_batch
from rung.training.run import (
    CONFIG_NAME,
    INITIAL_NAME,
    MODEL_NAME,
    REFERENCE_NAME,
    SUMMARY_NAME,
    RunFolder,
    TrainSummary,
    check_same_run,
    model_of,
    package_versions,
)
from rung.training.sinks import JsonLinesSink, MetricSink, RunDescription
from rung.training.step import TrainStep
from rung.training.throughput import Stopwatch
from rung.training.validate import Validator

logger = logging.getLogger(__name__)

_HELD_OUT = ("validation", "test")


def train(config: TrainConfig, context: TrainContext, sinks: Sequence[MetricSink] = ()) -> TrainSummary:
    """Train, or go on training, the run that the config describes.

    Args:
        config: the run.
        context: this rank.
        sinks: receivers of metrics besides the run's own metrics.jsonl; used on rank 0.

    Returns:
        The run's summary, the same on every rank; rank 0 also writes it to the run's folder.

    Raises:
        ValueError: the data, the model or the saved state do not fit the config.
        NonFiniteError: on every rank, before the update that would have spoilt the weights.
    """
    torch.use_deterministic_algorithms(mode=config.training.deterministic)
    return _Training(config, context, sinks).run()


@dataclass
class _Progress:
    """What a checkpoint holds besides model, optimizer and average."""

    reference: dict[str, Any]
    zero_step: dict[str, Metrics]
    step: int = 0
    best_loss: float = math.inf
    structures_per_second: float = 0.0


class _Training:
    def __init__(self, config: TrainConfig, context: TrainContext, sinks: Sequence[MetricSink]) -> None:
        self.config = config
        self.context = context
        self.folder = RunFolder.of(config)
        self.store = self.folder.checkpoints(config.training.keep)
        self.sinks = [JsonLinesSink(), *sinks] if context.rank == 0 else []
        self.dataset = ShardDataset(staged(config.data))
        self.records = {split: self.dataset.select(split) for split in _HELD_OUT}
        self.records["train"] = self.dataset.select("train", config.data.subset)
        if len(self.records["train"]) == 0:
            raise ValueError(
                f"{config.data.path} has no training records: prepare more data, lower split.* there, or"
                " raise data.subset"
            )
        self.validator = Validator(self.dataset, context, config.data, config.batch)
        batch, rank, world_size = target_batch(config), context.rank, context.world_size
        self.sampler = StepSampler(self.dataset.index, self.records["train"], batch, config.run.seed, rank, world_size)
        self.total_steps = config.training.epochs * self.sampler.steps_per_epoch
        self.stopped = False
        self.tracer = StepTracer(config.training.profile if context.rank == 0 else None, self.folder.path)

    def run(self) -> TrainSummary:
        state = self.store.newest()
        if state is None:
            self.start()
        else:
            check_same_run(self.config, self.dataset.manifest_hash, state, self.folder.path)
            finished = self.finished_summary(state["progress"]["step"])
            if finished is not None:
                return finished
            self.resume(state)
        try:
            self.open_sinks()
            self.loop()
            return self.finish()
        except BaseException:
            for sink in self.sinks:
                sink.abort()
            raise

    def start(self) -> None:
        """Begin at step 0 with the initial model, and record what it is worth untouched."""
        initial = initial_model(self.config, self.dataset, self.records["train"], self.context)
        self.step = self.build_step(initial.model, initial.model.state_dict())
        zero_step = {split: self.errors(split) for split in _HELD_OUT}
        self.progress = _Progress(initial.reference, zero_step)
        if self.context.rank == 0:
            self.folder.write(CONFIG_NAME, to_yaml(self.config))
            self.folder.write(REFERENCE_NAME, json.dumps(initial.reference, indent=1))
            if self.config.transfer.l2_sp:
                save_model(initial.model, self.folder.path / INITIAL_NAME, {"of": "the pull towards it"})
        self.checkpoint(zero_step["validation"])

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        pulled = self.config.transfer.l2_sp > 0
        anchor = load(self.folder.path / INITIAL_NAME).state_dict() if pulled else {}
        self.step = self.build_step(from_state(state["model"], origin="checkpoint"), anchor)
        if self.step.replay is not None:
            self.step.replay.load_state_dict(state["replay"])
        self.step.optimizer.load_state_dict(state["optimizer"])
        if self.step.average is not None:
            self.step.average.load_state_dict(state["average"])
        if self.context.rank == 0:  # the saved sums are those of all ranks together
            self.step.errors.add(state["error_sums"])
        self.progress = _Progress(**state["progress"])
        logger.info("%s: resuming at step %d of %d", self.folder.path, self.progress.step, self.total_steps)

    def build_step(self, model: CHGNet, anchor: Mapping[str, Tensor]) -> TrainStep:
        """Put the model on the device, freeze what the config freezes, and set up the update."""
        converter = model.graph_converter
        self.dataset.check_cutoffs(converter.atom_graph_cutoff, converter.bond_graph_cutoff)
        self.model = model.to(self.context.device)
        anchor = {name: value.clone() for name, value in anchor.items()}
        gentle = GentleTransfer(self.model, self.config.model, self.config.transfer, anchor)
        trained = self.config.reference.mode == "trainable"
        prepare_reference(self.model, "trainable" if trained else "frozen", None)  # keeps the energies
        replay = open_replay(self.config, self.model, self.context)
        return TrainStep(self.model, self.config.loss, self.config.optimizer, gentle, replay)

    def loop(self) -> None:
        """Do the steps that are left, epoch by epoch."""
        steps_per_epoch = self.sampler.steps_per_epoch
        while self.progress.step < self.total_steps and not self.stopped:
            epoch, first = divmod(self.progress.step, steps_per_epoch)
            self.steps_of(epoch, first)
            if self.progress.step == (epoch + 1) * steps_per_epoch:
                self.end_of_epoch(epoch)

    def steps_of(self, epoch: int, first: int) -> None:
        """Do the steps of an epoch from `first` on, logging and saving as configured."""
        training = self.config.training
        clock = Stopwatch(self.context.device)
        loader = BatchLoader(self.dataset, self.sampler.plans(epoch, first), self.config.data)
        aside = self.step.replay.steps(self.progress.step) if self.step.replay is not None else None
        for plan, batches in loader:
            self.stopped = self.context.should_stop(self.progress.step)
            if self.stopped:
                self.checkpoint({})
                return
            clock.data_arrived()
            on_device = [batch.to(self.context.device) for batch in batches]
            rate = learning_rate(
                self.progress.step, self.total_steps, self.config.optimizer.learning_rate, self.config.schedule
            )
            self.tracer.before(self.progress.step + 1)
            other, replayed = next(aside) if aside is not None else (None, [])
            joint = plan if other is None else joined(plan, other)
            norm = self.step.run(joint, on_device, rate, self.dataset.record_names, replayed)
            self.progress.step += 1
            self.tracer.after(self.progress.step)
            clock.step_done(plan)
            if self.progress.step % training.log_every == 0 or plan.is_last:
                speed = clock.read()
                self.progress.structures_per_second = speed["time/structures_per_second"]
                self.log_training({"epoch": epoch, "learning_rate": rate, "gradient_norm": norm, **speed})
            if training.checkpoint_every and self.progress.step % training.checkpoint_every == 0 and not plan.is_last:
                self.checkpoint({})

    def log_training(self, metrics: Metrics) -> None:
        """Reduce the errors since the last time over all ranks, and log them."""
        errors = errors_from_sums(self.step.errors.reduced(), loss_weights(self.config.loss))
        self.step.errors.clear()
        self.log({**{f"train/{name}": value for name, value in errors.items()}, **metrics})

    def end_of_epoch(self, epoch: int) -> None:
        """Validate, log, save, and tell the launcher."""
        with self.averaged_weights():
            errors = self.errors("validation")
        metrics = {f"validation/{name}": value for name, value in errors.items()}
        self.log({"epoch": epoch, **metrics})
        self.checkpoint(errors)
        self.context.report({"epoch": epoch, "step": self.progress.step, **metrics})

    def errors(self, split: str) -> Metrics:
        """Errors of the model as it stands on one split."""
        return self.validator.errors(self.model, self.records[split], self.config.loss)

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
        """Save the state; without validation records the newest checkpoint counts as the best."""
        loss = validation.get("loss", math.inf)
        best = loss < self.progress.best_loss or len(self.records["validation"]) == 0
        if best:
            self.progress.best_loss = loss
        error_sums = self.step.errors.reduced()
        if self.context.rank != 0:
            return
        average = self.step.average
        state = {
            "model": portable_state(self.model),
            "optimizer": self.step.optimizer.state_dict(),
            "average": average.state_dict() if average is not None else None,
            "replay": self.step.replay.state_dict() if self.step.replay is not None else None,
            "error_sums": error_sums,
            "progress": asdict(self.progress),
            "config": self.config.model_dump(mode="json"),
            "manifest_hash": self.dataset.manifest_hash,
            "versions": package_versions(),
        }
        self.store.save(state, self.progress.step, validation, best=best)

    def open_sinks(self) -> None:
        """Introduce the run to the sinks."""
        description = RunDescription(
            folder=self.folder.path,
            config=self.config,
            manifest_hash=self.dataset.manifest_hash,
            manifest=self.dataset.manifest.model_dump(mode="json"),
            reference=self.progress.reference,
            num_parameters=self.model.n_params,
            versions=package_versions(),
            first_step=self.progress.step,
            total_steps=self.total_steps,
        )
        for sink in self.sinks:
            sink.start(description)
        if self.progress.step == 0:
            self.log({f"validation/{name}": value for name, value in self.progress.zero_step["validation"].items()})

    def log(self, metrics: Metrics) -> None:
        """Send metrics of the current step to the sinks."""
        for sink in self.sinks:
            sink.log(metrics, self.progress.step)

    def finished_summary(self, step: int) -> TrainSummary | None:
        """The summary of a run that is complete already."""
        path = self.folder.path / SUMMARY_NAME
        if step < self.total_steps or not path.exists():
            return None
        summary = TrainSummary.read(path)
        return summary if summary.completed else None

    def finish(self) -> TrainSummary:
        """Evaluate the best weights on what was held out, and write model and summary."""
        wait_for_all()  # rank 0 may still be writing the checkpoint that every rank reads next
        best_step = self.store.best_step() or 0
        best_model = model_of(self.store.load(best_step)).to(self.context.device)
        best = {split: self.validator.errors(best_model, self.records[split], self.config.loss) for split in _HELD_OUT}
        summary = TrainSummary(
            run=str(self.folder.path),
            model=str(self.folder.path / MODEL_NAME),
            steps=self.progress.step,
            epochs=self.progress.step / self.sampler.steps_per_epoch,
            num_parameters=self.model.n_params,
            num_trainable=self.step.gradients.buffer.numel(),
            best_step=best_step,
            completed=self.progress.step >= self.total_steps,
            num_records={split: len(ids) for split, ids in self.records.items()},
            zero_step=self.progress.zero_step,
            best=best,
            structures_per_second=self.progress.structures_per_second,
        )
        if self.context.rank == 0:
            self.write_results(best_model, summary)
        return summary

    def write_results(self, model: CHGNet, summary: TrainSummary) -> None:
        """Write model file and summary, and hand both to the sinks."""
        card = {"run": summary.to_dict(), "config": self.config.model_dump(mode="json")}
        save_model(model, self.folder.path / MODEL_NAME, card)
        self.folder.write(SUMMARY_NAME, json.dumps(summary.to_dict(), indent=1))
        artifacts = [self.folder.path / name for name in (MODEL_NAME, SUMMARY_NAME, CONFIG_NAME, REFERENCE_NAME)]
        for sink in self.sinks:
            if summary.completed:
                sink.finish(artifacts)
            else:
                sink.abort()
        if summary.best_step == 0 and summary.steps > 0:
            logger.warning("no epoch was better than the initial model, which is what %s holds", summary.model)
