"""One optimizer step: gradients of the global batch, the finite check, the update."""

import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from chgnet.model import CHGNet
from torch import Tensor

from rung.config.sections import LossConfig, OptimizerConfig
from rung.data.batch import GraphBatch
from rung.data.sampler import StepPlan
from rung.model.chgnet import evaluate
from rung.training.distributed import FlatGradients, gather_text
from rung.training.gentle import GentleTransfer
from rung.training.loss import loss_of, target_errors
from rung.training.metrics import ErrorSums
from rung.training.optimizer import WeightAverage, build_optimizer, set_learning_rate
from rung.training.replay import Replay


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not finite; raised on every rank before the update, so the weights are still good."""


class TrainStep:
    """Model, optimizer and moving average, advanced one global batch at a time."""

    def __init__(
        self,
        model: CHGNet,
        loss: LossConfig,
        optimizer: OptimizerConfig,
        gentle: GentleTransfer,
        replay: Replay | None = None,
    ) -> None:
        self.model = model
        self.gentle = gentle
        self.replay = replay
        self.loss_config = loss
        self.clip_norm = optimizer.clip_norm
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if replay is not None:
            named |= {f"replay.{name}": parameter for name, parameter in replay.parameters().items()}
        self.gradients = FlatGradients(named.values())
        depths = [gentle.depths.get(name.removeprefix("replay."), 0) for name in named]
        self.optimizer = build_optimizer(self.gradients.parameters, optimizer, depths)
        decay = optimizer.ema_decay
        self.average = WeightAverage(model.named_parameters(), decay) if decay is not None else None
        self.errors = ErrorSums(self.gradients.buffer.device)

    def run(
        self,
        plan: StepPlan,
        batches: Sequence[GraphBatch],
        rate: float,
        names: Callable[[Sequence[int]], Sequence[str]],
        replayed: Sequence[GraphBatch] = (),
    ) -> float:
        """Update the weights with one global batch.

        Args:
            plan: the step, with the global number of labels.
            batches: this rank's micro-batches; may be empty.
            rate: learning rate.
            names: turns record ids into names, for the error.
            replayed: this rank's micro-batches of the second functional; `plan` counts their labels too.

        Returns:
            Norm of the global gradient before clipping.

        Raises:
            NonFiniteError: on every rank if the gradient is not finite on any.
        """
        self.gradients.clear()
        losses = [self._accumulate(self.model, batch, plan) for batch in batches]
        if self.replay is not None:
            for batch in replayed:
                self._accumulate(self.replay.model, batch, plan)
        self.gradients.sum_over_ranks()
        self.gentle.add_pull()
        norm = self.gradients.norm()
        norm_value = float(norm)
        if not math.isfinite(norm_value):
            bad = [batch for batch, loss in zip(batches, losses, strict=True) if not bool(loss.isfinite())]
            _stop_all_ranks(plan, bad, names)
        if self.clip_norm is not None:
            self.gradients.clip(norm, self.clip_norm)
        set_learning_rate(self.optimizer, rate, self.gentle.factors(plan.epoch))
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return norm_value

    def _accumulate(self, model: CHGNet, batch: GraphBatch, plan: StepPlan) -> Tensor:
        weights = self.loss_config
        prediction = evaluate(
            model,
            batch,
            forces=weights.force > 0,
            stress=weights.stress > 0,
            magmoms=weights.magmom > 0,
            create_graph=weights.force > 0 or weights.stress > 0,
        )
        errors = target_errors(prediction, batch, weights)
        loss = loss_of(errors, plan.label_counts, weights)
        loss.backward()
        if model is self.model:
            self.errors.add(errors.sums)
        return loss.detach()


def _stop_all_ranks(
    plan: StepPlan, bad: Sequence[GraphBatch], names: Callable[[Sequence[int]], Sequence[str]]
) -> NoReturn:
    records = [name for batch in bad for name in names(batch.record_ids.tolist())]
    shown = ", ".join(records[:20]) + (f" and {len(records) - 20} more" if len(records) > 20 else "")
    found = [f"rank {rank}: {text}" for rank, text in enumerate(gather_text(shown)) if text]
    where = "; ".join(found) if found else "every loss is finite, so it arose in the backward pass"
    raise NonFiniteError(
        f"the gradient of step {plan.step} of epoch {plan.epoch} is not finite, and the weights were not updated."
        f" Records with a loss that is not finite: {where}."
        " Lower optimizer.learning_rate, set optimizer.clip_norm, or look at these records"
    )
