"""The steps of a run, and what is done when one of them goes wrong.

All decisions follow from what every rank knows after the sum of the gradients, so all ranks take them alike.
"""

import math
import time
from collections.abc import Iterator, Sequence

from rung.data.batch import GraphBatch
from rung.data.codec import DamagedShardError
from rung.data.dataset import ShardDataset
from rung.data.loader import BatchLoader
from rung.data.sampler import StepPlan
from rung.training.distributed import gather_text
from rung.training.loss import loss_weights
from rung.training.metrics import Metrics, errors_from_sums
from rung.training.optimizer import learning_rate
from rung.training.profiling import StepTracer
from rung.training.replay import joined
from rung.training.resilience.incidents import SpikeDetector, Stragglers
from rung.training.resilience.notice import Notice
from rung.training.session import Session
from rung.training.step import GlobalGradient, NonFiniteError
from rung.training.throughput import Stopwatch

_SHOWN_RECORDS = 20


_Batches = list[GraphBatch]
_Steps = Iterator[tuple[StepPlan, _Batches]]
_Work = tuple[StepPlan, _Batches, StepPlan | None, _Batches]
"""Plan and batches of a step, of the target's functional and of the second."""

_Part = tuple[ShardDataset, GraphBatch]
"""A micro-batch of this rank and the data set it is from; in the order of `TrainStep.losses`."""


class Loop:
    """Does the steps that are left.

    Args:
        session: of this start, open.

    Attributes:
        stopped: whether a rank was asked to stop, after which all have saved.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stopped = False
        faults, context = session.config.faults, session.context
        self._spikes = SpikeDetector(faults.loss_spike)
        self._stragglers = Stragglers(faults.straggler)
        self._saved_at = time.monotonic()
        profile = session.config.training.profile if context.rank == 0 else None
        self._tracer = StepTracer(profile, session.folder.path)

    def run(self) -> None:
        """Train epoch by epoch until the end, or until a rank is asked to stop.

        Raises:
            NonFiniteError: `faults.non_finite` is stop, or all skips or rewinds are used up.
            DamagedShardError: `faults.damaged_shards` is refuse.
            MemoryBudgetError: a rank cannot hold a single structure.
            StorageError: the storage refused for longer than `faults.storage_patience`.
            HungRankError: a rank did not come to where the others wait for it.
        """
        session = self.session
        while not self.stopped:
            progress, steps_per_epoch = session.progress, session.sampler.steps_per_epoch
            closed = progress.closed_epochs or 0
            if progress.step == (closed + 1) * steps_per_epoch:
                self._end_of_epoch(closed)
            elif progress.step < session.total_steps:
                self._steps_of(*divmod(progress.step, steps_per_epoch))
            else:
                return

    def _steps_of(self, epoch: int, first: int) -> None:
        """Do the steps of an epoch from `first` on, until its end or until the plans are no longer the right ones."""
        session = self.session
        clock = Stopwatch(session.context.device)
        session.step.pause()
        loader = iter(BatchLoader(session.dataset, session.sampler.plans(epoch, first), session.config.data))
        replay = session.step.replay
        aside = replay.steps(session.progress.step) if replay is not None else None
        while (arrived := self._next(loader, aside)) is not None:
            plan, batches, other, replayed = arrived
            session.writer.check()
            clock.data_arrived()
            on_device = [batch.to(session.context.device) for batch in batches]
            self._tracer.before(session.progress.step + 1)
            enough = session.step.compute(plan if other is None else joined(plan, other), on_device, replayed)
            found = session.step.exchange(self._notice(out_of_memory=not enough))
            parts = [(session.dataset, batch) for batch in batches]
            parts += [(replay.dataset, batch) for batch in replayed] if replay is not None else []
            if self._must_change_plans(found, parts, None):
                return
            if not math.isfinite(found.norm + found.loss) and self._not_finite(plan, parts, found):
                return
            if math.isfinite(found.norm + found.loss):
                session.step.update(self._rate(), plan.epoch)
                self._look_at(plan, parts, found)
            session.progress.step += 1
            self._tracer.after(session.progress.step)
            clock.step_done(plan)
            self._after_step(plan, found, clock)
            if self.stopped:
                return

    def _next(self, loader: _Steps, aside: _Steps | None) -> _Work | None:
        """The next step's work; None at the end, or when some rank's records cannot be read and the plans are new."""
        try:
            arrived = next(loader, None)
            if arrived is None:
                return None
            other, replayed = next(aside) if aside is not None else (None, [])
        except DamagedShardError as error:
            damage = self.session.bearable(error)
            self.session.step.abstain()
            found = self.session.step.exchange(self._notice(damaged=True))
            self._must_change_plans(found, [], damage)
            return None
        return *arrived, other, replayed

    def _notice(self, *, out_of_memory: bool = False, damaged: bool = False) -> Notice:
        session = self.session
        minutes = session.config.training.checkpoint_minutes
        due = minutes is not None and session.context.rank == 0 and time.monotonic() - self._saved_at >= 60 * minutes
        after_this = session.progress.step + 1
        return Notice(
            stop=session.context.should_stop(after_this),
            save=due or session.context.should_save(after_this),
            out_of_memory=out_of_memory,
            damaged=damaged,
        )

    def _must_change_plans(
        self, found: GlobalGradient, parts: Sequence[_Part], damage: DamagedShardError | None
    ) -> bool:
        """Whether the step has to be done again with other micro-batches; sees to them."""
        session = self.session
        if found.heard.damaged:
            session.leave_out(damage)
        elif found.heard.out_of_memory:
            structures = [len(batch.record_ids) for _, batch in parts] if not session.step.losses else []
            session.lower_budget(max(structures, default=0), f"step {session.progress.step + 1}")
        else:
            return False
        return True

    def _not_finite(self, plan: StepPlan, parts: Sequence[_Part], found: GlobalGradient) -> bool:
        """Deal with a gradient that is not finite as the config says; whether the run was rewound."""
        session, faults = self.session, self.session.config.faults
        own = self._records_by_loss(parts) if session.context.rank in found.heard.not_finite else []
        where = _by_rank(gather_text(_shown(own))) or "none: the gradients of all ranks are finite, their sum is not"
        text = (
            f"the gradient of step {plan.step} of epoch {plan.epoch} (global step {session.progress.step + 1}) is not"
            f" finite, and the weights were not updated. Records of the ranks where it arose, highest loss first:"
            f" {where}"
        )
        advice = "Lower optimizer.learning_rate, set optimizer.clip_norm, or look at these records"
        if faults.non_finite == "skip" and session.progress.skipped < faults.max_skips:
            session.progress.skipped += 1
            count = f"{session.progress.skipped} of at most {faults.max_skips}"
            session.incident("skipped step", f"{text}. The step is skipped ({count}, faults.max_skips)")
            return False
        if faults.non_finite == "rewind" and session.progress.rewinds < faults.max_rewinds:
            self._rewind(text)
            return True
        used_up = {"skip": " All of faults.max_skips are used up.", "rewind": " All of faults.max_rewinds are used up."}
        raise NonFiniteError(f"{text}.{used_up.get(faults.non_finite, '')} {advice}")

    def _rewind(self, text: str) -> None:
        """Go back to the last checkpoint, and on from there at a lower rate."""
        session, faults, before = self.session, self.session.config.faults, self.session.progress
        state = session.newest_state()
        if state is None:
            raise NonFiniteError(f"{text}. There is no checkpoint to go back to")
        session.restore(state)
        progress = session.progress
        progress.rewinds, progress.rate_factor = before.rewinds + 1, before.rate_factor * faults.rewind_rate
        session.incident(
            "rewind",
            f"{text}. Going back from step {before.step} to the checkpoint of step {progress.step}, and on at"
            f" {progress.rate_factor:g} of the scheduled rate ({progress.rewinds} of at most {faults.max_rewinds},"
            " faults.max_rewinds)",
        )
        session.checkpoint({})
        if session.context.rank == 0:
            session.file.go_back(progress.step)

    def _look_at(self, plan: StepPlan, parts: Sequence[_Part], found: GlobalGradient) -> None:
        """Report a loss out of the ordinary with the records in it."""
        ratio = self._spikes.ratio(found.loss)
        if ratio is not None:
            records = _by_rank(gather_text(_shown(self._records_by_loss(parts))))
            self.session.incident(
                "loss spike",
                f"the loss of step {plan.step} of epoch {plan.epoch} (global step {self.session.progress.step + 1}),"
                f" {found.loss:.4g}, is {ratio:.0f} times the median of those before it (faults.loss_spike). Its"
                f" records, highest loss first: {records}",
                loss=found.loss,
            )

    def _records_by_loss(self, parts: Sequence[_Part]) -> list[str]:
        """Names of this rank's records, those of the micro-batch with the highest loss first, and NaN before all."""
        losses = [float(loss) for loss in self.session.step.losses]
        order = sorted(range(len(parts)), key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)
        named = (dataset.record_names(batch.record_ids.tolist()) for dataset, batch in (parts[i] for i in order[::-1]))
        return [name for names in named for name in names]

    def _rate(self) -> float:
        session = self.session
        config = session.config
        scheduled = learning_rate(
            session.progress.step, session.total_steps, config.optimizer.learning_rate, config.schedule
        )
        return scheduled * session.progress.rate_factor

    def _after_step(self, plan: StepPlan, found: GlobalGradient, clock: Stopwatch) -> None:
        """Log and save as configured, and see whether it is time to leave."""
        session, training = self.session, self.session.config.training
        self._stragglers.add(found.heard.seconds)
        step = session.progress.step
        if step % training.log_every == 0 or plan.is_last:
            speed = clock.read()
            session.progress.structures_per_second = speed["time/structures_per_second"]
            rate = max(group["lr"] for group in self.session.step.optimizer.param_groups)
            self._log_training({"epoch": plan.epoch, "learning_rate": rate, "gradient_norm": found.norm, **speed})
        self.stopped = found.heard.stop
        due = training.checkpoint_every and step % training.checkpoint_every == 0 and not plan.is_last
        if due or found.heard.save or found.heard.stop:
            self.save({})

    def _log_training(self, metrics: Metrics) -> None:
        """Reduce the errors since the last time over all ranks, and log them."""
        session = self.session
        errors = errors_from_sums(session.step.errors.reduced(), loss_weights(session.config.loss))
        session.step.errors.clear()
        counts = {"num_ranks": session.context.world_size, "skipped_steps": session.progress.skipped}
        session.log({**{f"train/{name}": value for name, value in errors.items()}, **metrics, **counts})
        slow = self._stragglers.found()
        if slow is not None:
            rank, seconds, others = slow
            session.incident(
                "straggler",
                f"rank {rank} takes {seconds:.2g} s for its share of a step, the others {others:.2g} s: they wait for"
                " it. Look at its node (other work, a throttled device, slow storage)",
                rank=rank,
            )

    def _end_of_epoch(self, epoch: int) -> None:
        """Validate, log, save, and tell the launcher."""
        session = self.session
        with session.averaged_weights():
            errors = session.errors("validation")
        metrics = {f"validation/{name}": value for name, value in errors.items()}
        session.log({"epoch": epoch, **metrics})
        session.progress.closed_epochs = epoch + 1
        self.save(errors)
        if session.context.ends_at_reports:
            session.written()
        session.context.report({"epoch": epoch, "step": session.progress.step, **metrics})

    def save(self, validation: Metrics) -> None:
        """Hand a checkpoint to the writer, with the errors on the validation records where an epoch ends.

        Raises:
            StorageError: an earlier one could not be written.
        """
        self.session.checkpoint(validation)
        self._saved_at = time.monotonic()


def _shown(records: list[str]) -> str:
    more = f" and {len(records) - _SHOWN_RECORDS} more" if len(records) > _SHOWN_RECORDS else ""
    return ", ".join(records[:_SHOWN_RECORDS]) + more


def _by_rank(texts: list[str]) -> str:
    return "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(texts) if text)
