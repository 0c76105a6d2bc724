"""Settings that hold for the whole process are given back."""

import contextlib

import pytest
import torch

from rung.config.sections import TrainingConfig
from rung.training.numerics import numerics


@pytest.mark.parametrize(("precision", "name"), [("float32", "highest"), ("tf32", "high")])
def test_settings_hold_for_the_run_and_are_given_back_when_it_fails(precision, name):
    before = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    within = numerics(TrainingConfig(precision=precision, deterministic=True))
    with contextlib.suppress(RuntimeError), within:
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_float32_matmul_precision() == name
        raise RuntimeError
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()) == before
