"""The flat gradient buffer."""

import pytest
import torch

from rung.training.distributed import FlatGradients, gather_text


def test_backward_accumulates_into_the_buffer():
    model = torch.nn.Linear(2, 1)
    gradients = FlatGradients(model.parameters())
    for _ in range(2):
        model(torch.tensor([[1.0, 2.0]])).sum().backward()
    assert gradients.buffer.tolist() == [2.0, 4.0, 2.0]
    gradients.clear()
    assert model.weight.grad.abs().sum() == 0


def test_clipping_scales_to_the_limit_and_leaves_small_gradients():
    model = torch.nn.Linear(2, 1, bias=False)
    gradients = FlatGradients(model.parameters())
    gradients.buffer.copy_(torch.tensor([3.0, 4.0]))
    gradients.clip(gradients.norm(), 1.0)
    assert model.weight.grad.flatten().tolist() == pytest.approx([0.6, 0.8])
    gradients.clip(gradients.norm(), 10.0)
    assert gradients.buffer.tolist() == pytest.approx([0.6, 0.8])


def test_frozen_parameters_are_left_out_and_nothing_trainable_is_an_error():
    model = torch.nn.Linear(2, 1)
    model.weight.requires_grad_(False)
    assert FlatGradients(model.parameters()).buffer.numel() == 1
    model.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="freeze_depth"):
        FlatGradients(model.parameters())


def test_one_rank_gathers_its_own_text():
    assert gather_text("here") == ["here"]
