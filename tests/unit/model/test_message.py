"""Message passing in blocks against the same in torch's own operations: values, and both derivatives."""

from functools import partial

import pytest
import torch

from rung.model import blocks
from rung.model.gate import Parameters
from rung.model.message import by_autograd, with_derivatives
from rung.model.routes import Routes

in_blocks = partial(with_derivatives, blocks)

WIDTH, HIDDEN = 5, 6
SENDERS, TARGETS = 7, 4


def _random(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def _case(num_messages, *, hidden_layer, weighted, to_targets, learns=True):
    torch.manual_seed(num_messages)
    rows = [torch.randint(SENDERS, (num_messages,)) for _ in range(3)]
    width = HIDDEN if hidden_layer else WIDTH
    terms = (_random(SENDERS, 2 * width), _random(SENDERS, 2 * width), _random(num_messages, 2 * width))
    extra = (_random(2, HIDDEN, WIDTH), _random(2, WIDTH)) if hidden_layer else ()
    return {
        "routes": Routes(
            terms=(rows[0], rows[1], None),
            weight=rows[2] if weighted else None,
            target=torch.randint(TARGETS, (num_messages,)) if to_targets else None,
            num_messages=num_messages,
            num_targets=TARGETS if to_targets else num_messages,
            learns=learns,
        ),
        "terms": terms,
        "weight": _random(SENDERS, WIDTH) if weighted else None,
        "parameters": Parameters(_random(2, WIDTH), _random(2, WIDTH), *extra),
    }


def _inputs(case):
    parameters = case["parameters"]
    tensors = (parameters.scale, parameters.shift, parameters.weight, parameters.bias, case["weight"])
    return [*case["terms"], *(tensor for tensor in tensors if tensor is not None)]


def _forces_like_loss(function, case):
    """A loss of the result and of its gradient by terms and weight, as a loss of energies and forces is."""
    result = function(**case)
    senders = [*case["terms"], *([] if case["weight"] is None else [case["weight"]])]
    slopes = torch.autograd.grad(result.pow(3).sum(), senders, create_graph=True)
    loss = sum(slope.sin().sum() for slope in slopes) + result.sum()
    return loss, torch.autograd.grad(loss, _inputs(case))


@pytest.mark.parametrize("to_targets", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("hidden_layer", [True, False])
@pytest.mark.parametrize("num_messages", [0, 1, 13])
def test_blocks_equal_autograd(monkeypatch, num_messages, hidden_layer, weighted, to_targets):
    monkeypatch.setattr("rung.model.blocks._BLOCK", 5)
    case = _case(num_messages, hidden_layer=hidden_layer, weighted=weighted, to_targets=to_targets)
    loss, gradients = _forces_like_loss(in_blocks, case)
    expected, expected_gradients = _forces_like_loss(by_autograd, case)
    assert torch.allclose(loss, expected, rtol=1e-10)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(
            found, wanted, rtol=1e-8, atol=1e-8 * (1 + wanted.abs().max().item() if wanted.numel() else 0)
        )


def test_a_term_alone_can_be_differentiated():
    case = _case(9, hidden_layer=True, weighted=True, to_targets=True)

    def gradient(function):
        (slope,) = torch.autograd.grad(function(**case).pow(2).sum(), case["terms"][1], create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), case["parameters"].weight)[0]

    assert torch.allclose(gradient(in_blocks), gradient(by_autograd), rtol=1e-8, atol=1e-8)


def test_parameters_that_do_not_learn_get_no_gradient():
    case = _case(9, hidden_layer=True, weighted=True, to_targets=True, learns=False)
    in_blocks(**case).sum().backward()
    assert case["parameters"].scale.grad is None
    assert case["terms"][0].grad is not None
