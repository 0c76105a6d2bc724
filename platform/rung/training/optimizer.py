"""The update rule, the learning-rate schedule and the moving average of the weights."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rung.config.sections import OptimizerConfig, ScheduleConfig


def build_optimizer(
    parameters: Sequence[nn.Parameter], config: OptimizerConfig, depths: Sequence[int] | None = None
) -> torch.optim.Optimizer:
    """Adam, or AdamW with decoupled weight decay; one fused kernel on GPUs.

    Adam: Kingma and Ba, ICLR 2015 (arXiv 1412.6980); AdamW: Loshchilov and Hutter, ICLR 2019 (arXiv 1711.05101).

    Args:
        parameters: trainable ones.
        config: kind and rates.
        depths: of each parameter in the network (`rung.model.freeze.depth_of`); each makes a group of its own. All
            parameters are one group of depth 0 if absent.
    """
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    groups = [{"params": list(parameters), "depth": 0}]
    if depths is not None:
        pairs = list(zip(parameters, depths, strict=True))
        groups = [
            {"params": [parameter for parameter, its in pairs if its == depth], "depth": depth}
            for depth in sorted(set(depths))
        ]
    return kinds[config.kind](
        groups,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=parameters[0].device.type == "cuda",
    )


def learning_rate(step: int, total_steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """The rate of the update that follows `step` finished updates.

    It depends on the global step alone, so it survives any change of the number of ranks. Warm-up rises linearly
    over the first `warmup * total_steps` updates (Goyal et al. 2017, arXiv 1706.02677); the cosine then falls to
    `final * peak` at the last update (Loshchilov and Hutter, ICLR 2017, arXiv 1608.03983, without restarts).

    Args:
        step: finished updates.
        total_steps: of the whole run.
        peak: rate after the warm-up.
        schedule: shape.
    """
    warmup_steps = round(schedule.warmup * total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule.kind == "constant":
        return peak
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    final = schedule.final * peak
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, rate: float, factor: Callable[[int], float] | None = None
) -> None:
    """Set the rate of every parameter group, times the factor of its depth if there is one."""
    for group in optimizer.param_groups:
        group["lr"] = rate if factor is None else rate * factor(group["depth"])


class WeightAverage:
    """Exponential moving average of the trainable parameters: decay * average + (1 - decay) * parameters.

    The decay rises as (1 + n) / (10 + n) over the first updates n, so that short runs do not average over their start;
    the rule is that of TensorFlow's `ExponentialMovingAverage`.

    Args:
        named_parameters: of the model; the trainable ones are averaged.
        decay: the largest, in (0, 1).
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        trainable = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
        self.decay = decay
        self.num_updates = 0
        self._names = list(trainable)
        self._parameters: list[Tensor] = list(trainable.values())
        self._average: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]

    def update(self) -> None:
        """Take in the current parameters."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._parameters, 1 - decay)

    def swap(self) -> None:
        """Exchange the model's parameters with the average; a second call exchanges them back."""
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self._average, strict=True):
                current = parameter.clone()
                parameter.copy_(average)
                average.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """The average by name of parameter, and the number of updates in it."""
        average = dict(zip(self._names, self._average, strict=True))
        return {"num_updates": self.num_updates, "average": average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved average."""
        self.num_updates = state["num_updates"]
        with torch.no_grad():
            for name, average in zip(self._names, self._average, strict=True):
                average.copy_(state["average"][name])
