"""What the ranks tell each other in every step: a few numbers that travel with the gradient, in the same collective.

So all ranks know the same after each step, and stop, save, or take a step back together, without any message of their
own that could get lost or be waited for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

_SHARED: Final = 4  # stop, save, out of memory, damaged data
_PER_RANK: Final = 2  # seconds, and whether the gradient is not finite


@dataclass(frozen=True)
class Notice:
    """What one rank has to say."""

    stop: bool = False
    """It was asked to checkpoint and leave."""
    save: bool = False
    """It wants a checkpoint now: the time has come, or its node will be taken away."""
    out_of_memory: bool = False
    """It could not hold its micro-batches."""
    damaged: bool = False
    """It could not read its records."""
    seconds: float = 0.0
    """From the end of the step before until its gradient was there: what the others had to wait for."""

    def encode(self, rank: int, world_size: int) -> list[float]:
        """As `num_slots` numbers that add up over ranks; the flags of finiteness are left 0."""
        seconds = [0.0] * (_PER_RANK * world_size)
        seconds[_PER_RANK * rank] = self.seconds
        return [float(self.stop), float(self.save), float(self.out_of_memory), float(self.damaged), *seconds]


@dataclass(frozen=True)
class Heard:
    """What all ranks together have to say; the same on each."""

    stop: bool
    save: bool
    out_of_memory: bool
    damaged: bool
    seconds: tuple[float, ...]
    """Of each rank."""
    not_finite: tuple[int, ...]
    """Ranks whose own gradient is not finite."""

    @classmethod
    def decode(cls, numbers: Sequence[float]) -> Self:
        """From the sum of `Notice.encode` over all ranks."""
        stop, save, out_of_memory, damaged = (number > 0 for number in numbers[:_SHARED])
        per_rank = numbers[_SHARED:]
        bad = [rank for rank, flag in enumerate(per_rank[1::_PER_RANK]) if flag]
        return cls(stop, save, out_of_memory, damaged, tuple(per_rank[::_PER_RANK]), tuple(bad))


def num_slots(world_size: int) -> int:
    """How many numbers a notice takes."""
    return _SHARED + _PER_RANK * world_size


def finite_slot(rank: int) -> int:
    """Where a rank says that its gradient is not finite."""
    return _SHARED + _PER_RANK * rank + 1
