"""The benchmark of the share of a GPU's peaks sees the fused kernels."""

import pytest
import torch

from tests.benchmarks.throughput import _ByteCounter, count_bytes, messages_by, step_of

pytest.importorskip("triton", reason="the kernels need Triton")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]


def test_kernels_are_counted_and_move_less_than_torchs_own_operations():
    step = step_of(4, "cuda")
    step()
    with _ByteCounter() as without_kernels:
        step()
    fused = count_bytes(step, "fused")
    with messages_by("blocks"):
        blocks = count_bytes(step, "blocks")
    assert without_kernels.total < fused < blocks
