"""Telling want of memory from other errors; PyTorch has a kind of its own for it on GPUs alone."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is memory that did not suffice, of the GPU or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in ("out of memory", "not enough memory", "can't allocate memory"))
