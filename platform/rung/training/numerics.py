"""How exactly a run computes: settings of torch's that hold for the whole process, given back after the run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch

from rung.config.sections import Precision, TrainingConfig

_MATMUL: Final[Mapping[Precision, str]] = {"float32": "highest", "tf32": "high"}
"""Names of the precisions in `torch.set_float32_matmul_precision`; the fused kernels of `rung.model.fused` heed it."""


@contextmanager
def numerics(config: TrainingConfig) -> Iterator[None]:
    """Compute as the config says, and with the settings of before afterwards."""
    deterministic, precision = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(mode=config.deterministic)
    set_precision(config.precision)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=deterministic)
        torch.set_float32_matmul_precision(precision)


def set_precision(precision: Precision) -> None:
    """Set the precision of the factors in products of float32 matrices; sums stay float32."""
    torch.set_float32_matmul_precision(_MATMUL[precision])
