"""One optimizer step in three parts: the gradient of this rank's share, its sum over all ranks, the update.

Between the second and the third the loop can still do otherwise: nothing has changed yet.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from chgnet.model import CHGNet
from torch import Tensor

from rung.config.tree import TrainConfig
from rung.data.batch import GraphBatch
from rung.data.sampler import StepPlan
from rung.model.chgnet import evaluate
from rung.model.memory import is_out_of_memory
from rung.training.context import TrainContext
from rung.training.distributed import FlatGradients
from rung.training.gentle import GentleTransfer
from rung.training.loss import loss_of, target_errors
from rung.training.metrics import ErrorSums
from rung.training.optimizer import WeightAverage, build_optimizer, set_learning_rate
from rung.training.replay import OWN, Replay
from rung.training.resilience.notice import Heard, Notice, finite_slot, num_slots


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not finite; raised on every rank before the update, so the weights are still good."""


@dataclass(frozen=True)
class GlobalGradient:
    """What all ranks know when the gradient of the global batch is there."""

    norm: float
    """Euclidean, before clipping, with the pull of L2-SP; not finite if any component is not."""
    loss: float
    """Of the global batch, both functionals together (`rung.training.loss`), without the pull."""
    heard: Heard


class TrainStep:
    """Model, optimizer and moving average, advanced one global batch at a time.

    Args:
        model: of the target functional, on its device.
        config: the run.
        context: this rank.
        gentle: rates by depth, and the pull towards the initial weights.
        replay: the second functional, if the run has one.

    Attributes:
        errors: of this rank's updates since the last clearing, for the target functional alone.

    Raises:
        ValueError: no parameter is trainable.
    """

    def __init__(
        self,
        model: CHGNet,
        config: TrainConfig,
        context: TrainContext,
        gentle: GentleTransfer,
        replay: Replay | None = None,
    ) -> None:
        self.model = model
        self.gentle = gentle
        self.replay = replay
        self.loss_config = config.loss
        self.clip_norm = config.optimizer.clip_norm
        self._rank, self._world_size = context.rank, context.world_size
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if replay is not None:
            named |= replay.parameters()
        self.gradients = FlatGradients(named.values(), 1 + num_slots(context.world_size))
        depths = [gentle.depths[name.removeprefix(OWN)] for name in named]
        self.optimizer = build_optimizer(self.gradients.parameters, config.optimizer, depths)
        decay = config.optimizer.ema_decay
        self.average = WeightAverage(named.items(), decay) if decay is not None else None
        self.errors = ErrorSums(self.gradients.buffer.device)
        self._of_step = ErrorSums(self.gradients.buffer.device)
        self._norm: Tensor | None = None
        self._released = time.perf_counter()
        self.losses: list[Tensor] = []
        """Share of the global loss of each of this rank's micro-batches, those of the second functional last."""

    def compute(self, plan: StepPlan, batches: Sequence[GraphBatch], replayed: Sequence[GraphBatch] = ()) -> bool:
        """Compute the gradient of this rank's micro-batches; there may be none. False if memory did not suffice.

        Args:
            plan: the step, with the global number of labels of both functionals.
            batches: of the target functional, on the device.
            replayed: of the second functional, on the device.
        """
        self.abstain()
        try:
            for batch in batches:
                self.losses.append(self._accumulate(self.model, batch, plan))
            if self.replay is not None:
                for batch in replayed:
                    self.losses.append(self._accumulate(self.replay.model, batch, plan))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return True
        self.abstain()  # outside the handler, which holds the frames that hold the tensors
        if self.gradients.buffer.is_cuda:
            torch.cuda.empty_cache()
        return False

    def abstain(self) -> None:
        """Have nothing to contribute to this step."""
        self.gradients.clear()
        self._of_step.clear()
        self.losses = []

    def exchange(self, notice: Notice) -> GlobalGradient:
        """Sum gradient, loss and notices over all ranks.

        Raises:
            HungRankError: a rank did not come in time.
        """
        device = self.gradients.buffer.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # seconds are to be this rank's own, without those it waits for others
        notice = replace(notice, seconds=time.perf_counter() - self._released)
        slots = self.gradients.slots
        slots[1:] = torch.tensor(notice.encode(self._rank, self._world_size), dtype=slots.dtype)
        slots[1 + finite_slot(self._rank)] = (~torch.isfinite(self.gradients.buffer.sum())).to(slots.dtype)
        if self.losses:
            slots[0] = torch.stack(self.losses).sum()
        self.gradients.sum_over_ranks()
        self.gentle.add_pull()
        self._norm = self.gradients.norm()
        norm, loss, *numbers = torch.cat((self._norm[None], slots)).tolist()
        self._released = time.perf_counter()
        return GlobalGradient(norm, loss, Heard.decode(numbers))

    def update(self, rate: float, epoch: int) -> None:
        """Update the weights with the gradient that was exchanged last.

        Args:
            rate: learning rate of the readout; every depth has a share of it (`GentleTransfer.factor`).
            epoch: counted from 0.
        """
        if self.clip_norm is not None and self._norm is not None:
            self.gradients.clip(self._norm, self.clip_norm)
        set_learning_rate(self.optimizer, rate, self.gentle.factors(epoch))
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.errors.add(self._of_step.sums)

    def pause(self) -> None:
        """Not count the time since the last exchange as a part of the next step: the loop did something else."""
        self._released = time.perf_counter()

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
            self._of_step.add(errors.sums)
        return loss.detach()
