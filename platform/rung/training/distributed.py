"""Data-parallel training in three collectives: sum, barrier and gather.

Rung does not use torch's DistributedDataParallel: its hooks fire once per parameter and backward pass, while a step
here may hold any number of micro-batches per rank and differentiates twice (forces are gradients). Instead all
gradients live in one flat buffer which is summed over ranks once per step. CHGNet's 0.4 M parameters are 1.6 MB, so
there is nothing to overlap, and ranks may hold different numbers of micro-batches without any risk of a hang.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rung.training.resilience.rollcall import RollCall

_roll_call: RollCall | None = None  # there is one process group in a process, and one roll of its ranks


@contextmanager
def naming_hung_ranks(timeout: float) -> Iterator[None]:
    """Have every collective name the ranks that do not come to it within so many seconds."""
    global _roll_call  # noqa: PLW0603 - see there
    if not _several_ranks():
        yield
        return
    _roll_call = RollCall(timeout).start()
    try:
        yield
    finally:
        _roll_call.close()
        _roll_call = None


def _several_ranks() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def _collective(name: str) -> AbstractContextManager[None]:
    return _roll_call.collective(name) if _roll_call else nullcontext()


def sum_over_ranks(tensor: Tensor, name: str = "sum of errors") -> Tensor:
    """Sum a tensor over all ranks, in place; the name is for messages.

    Raises:
        HungRankError: a rank did not come in time.
    """
    if _several_ranks():
        with _collective(name):
            dist.all_reduce(tensor)
    return tensor


def wait_for_all() -> None:
    """Return when every rank has come here.

    Raises:
        HungRankError: a rank did not come in time.
    """
    if _several_ranks():
        with _collective("barrier"):
            dist.barrier()


def gather_text(text: str) -> list[str]:
    """Collect one short text of every rank, in order of rank, stripped. Plain bytes: nothing is pickled.

    Raises:
        HungRankError: a rank did not come in time.
    """
    if not _several_ranks():
        return [text]
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    own = torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8).to(device)
    with _collective("exchange of texts"):
        lengths = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
        lengths[dist.get_rank()] = len(own)
        dist.all_reduce(lengths)
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8, device=device)
        padded[: len(own)] = own
        rows = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, padded)
    return [bytes(row[:length].tolist()).decode().strip() for row, length in zip(rows, lengths.tolist(), strict=True)]


class FlatGradients:
    """The gradients of all trainable parameters as views into one buffer.

    `backward()` accumulates into the views, so summing over ranks, the norm, clipping and the finite check are one
    operation each.

    Args:
        parameters: of the model; the trainable ones are taken.
        num_slots: numbers that are summed over ranks along with the gradients, for whatever ranks tell each other.

    Attributes:
        parameters: the trainable ones, in their order.
        buffer: (num_trainable,) gradients, on the parameters' device and of their type.
        slots: (num_slots,), the same.

    Raises:
        ValueError: no parameter is trainable.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], num_slots: int = 0) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        if not self.parameters:
            raise ValueError("no parameter is trainable: lower model.freeze_depth")
        first = self.parameters[0]
        size = sum(parameter.numel() for parameter in self.parameters)
        self._whole = torch.zeros(size + num_slots, dtype=first.dtype, device=first.device)
        self.buffer, self.slots = self._whole[:size], self._whole[size:]
        offset = 0
        for parameter in self.parameters:
            parameter.grad = self.buffer[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()

    def clear(self) -> None:
        """Set every gradient and slot to zero."""
        self._whole.zero_()

    def sum_over_ranks(self) -> None:
        """Add up the gradients and slots of all ranks.

        Raises:
            HungRankError: a rank did not come in time.
        """
        sum_over_ranks(self._whole, "sum of gradients")

    def norm(self) -> Tensor:
        """Euclidean norm over all parameters, a scalar on the device; not finite if any component is not."""
        return self.buffer.norm()

    def clip(self, norm: Tensor, limit: float) -> None:
        """Scale the gradients so that their norm, a scalar, does not exceed the limit (Pascanu et al., ICML 2013)."""
        self.buffer.mul_(torch.clamp(limit / (norm + 1e-12), max=1.0))
