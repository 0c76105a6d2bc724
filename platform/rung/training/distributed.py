"""Data-parallel training in three collectives: sum, barrier and gather.

Rung does not use torch's DistributedDataParallel: its hooks fire once per parameter and backward pass, while a step
here may hold any number of micro-batches per rank and differentiates twice (forces are gradients). Instead all
gradients live in one flat buffer which is summed over ranks once per step. CHGNet's 0.4 M parameters are 1.6 MB, so
there is nothing to overlap, and ranks may hold different numbers of micro-batches without any risk of a hang.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def gather_text(text: str) -> list[str]:
    """Collect one short text of every rank, in order of rank."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return [text]
    texts: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(texts, text)
    return [entry or "" for entry in texts]


class FlatGradients:
    """The gradients of all trainable parameters as views into one buffer.

    `backward()` accumulates into the views, so summing over ranks, the norm, clipping and the finite check are one
    operation each.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        if not self.parameters:
            raise ValueError("no parameter is trainable: lower model.freeze_depth")
        first = self.parameters[0]
        size = sum(parameter.numel() for parameter in self.parameters)
        self.buffer = torch.zeros(size, dtype=first.dtype, device=first.device)
        offset = 0
        for parameter in self.parameters:
            parameter.grad = self.buffer[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()

    def clear(self) -> None:
        """Set every gradient to zero."""
        self.buffer.zero_()

    def sum_over_ranks(self) -> None:
        """Add up the gradients of all ranks."""
        sum_over_ranks(self.buffer)

    def norm(self) -> Tensor:
        """Euclidean norm over all parameters, a scalar on the device; not finite if any component is not."""
        return self.buffer.norm()

    def clip(self, norm: Tensor, limit: float) -> None:
        """Scale the gradients so that their norm does not exceed the limit."""
        self.buffer.mul_(torch.clamp(limit / (norm + 1e-12), max=1.0))
