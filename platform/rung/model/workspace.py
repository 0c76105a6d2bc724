"""Memory for the large arrays of a step on a CPU, kept from step to step.

The kernel clears every page that it hands out. For the arrays of a step that costs up to a quarter of its time, and
whether malloc gives them back to the kernel in between depends on what happens to lie behind them. So they are kept
here, on large pages where there are any (4 % of a step), and used again by the next step.
"""

import math
import mmap
import threading
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 2**20
"""Bytes from which an array is kept; smaller ones are left to torch."""
_LARGEST_WASTE = 1.5
"""An array takes a kept block of at most so many times its size."""


class Workspace:
    """Blocks of memory, each of which belongs to one tensor or to none.

    A tensor returns its block when nothing refers to it any more. There is never more memory than tensors needed at one
    time: blocks that fit no tensor are let go before new ones are made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []
        self._returned: deque[mmap.mmap] = deque()  # filled by finalizers, which run at any moment and take no lock
        self._used = self._most_used = 0

    def empty(self, *shape: int) -> Tensor:
        """Return a float32 tensor of any content."""
        size = 4 * math.prod(shape)
        if size < _SMALLEST:
            return torch.empty(*shape)
        with self._lock:
            self._collect()
            block = self._block(size)
            self._used += len(block)
            self._most_used = max(self._most_used, self._used)
        array = np.frombuffer(block, np.float32)[: size // 4]
        weakref.finalize(array, self._returned.append, block).atexit = False
        return torch.from_numpy(array).view(shape)

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        with self._lock:
            self._collect()
            return self._used + sum(map(len, self._free))

    def _block(self, size: int) -> mmap.mmap:
        fitting = [block for block in self._free if size <= len(block) <= _LARGEST_WASTE * size]
        if fitting:
            block = min(fitting, key=len)
            self._free.remove(block)
            return block
        while self._free and self._used + size + sum(map(len, self._free)) > self._most_used:
            self._free.pop(0)
        return _new(size)

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._used -= len(block)
            self._free.append(block)


def _new(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block
