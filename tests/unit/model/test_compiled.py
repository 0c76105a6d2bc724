"""Compiled loops against torch's own operations in double precision: values, both derivatives, bit for bit again."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch

from rung.model import blocks, caching, compiled, message
from rung.model.gate import Parameters
from rung.model.routes import Routes

WIDTH, HIDDEN = 16, 24
SENDERS, TARGETS = 70, 40


def _case(num_messages, *, hidden_layer, weighted, to_targets, learns=True):
    generator = torch.Generator().manual_seed(num_messages)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def rows(number):
        return torch.randint(number, (num_messages,), generator=generator)

    width = HIDDEN if hidden_layer else WIDTH
    routes = Routes(
        terms=(rows(SENDERS), rows(SENDERS), None),
        weight=rows(SENDERS) if weighted else None,
        target=rows(TARGETS) if to_targets else None,
        num_messages=num_messages,
        num_targets=TARGETS if to_targets else num_messages,
        learns=learns,
    )
    terms = random(SENDERS, 2 * width), random(SENDERS, 2 * width), random(num_messages, 2 * width)
    extra = (random(2, HIDDEN, WIDTH) / 5, random(2, WIDTH)) if hidden_layer else (None, None)
    return routes, (*terms, random(SENDERS, WIDTH) if weighted else None, random(2, WIDTH), random(2, WIDTH), *extra)


def _in_blocks(*arguments):
    return message.with_derivatives(blocks, *arguments)


def _derivatives(function, routes, tensors, dtype, *, energies=True):
    """Result, its gradient by terms and weight, and that of a loss of both by everything."""
    inputs = [None if each is None else each.to(dtype).requires_grad_() for each in tensors]
    *terms, weight = inputs[:4]
    result = function(routes, tuple(terms), weight, Parameters(*inputs[4:]))
    senders = [each for each in inputs[:4] if each is not None]
    slopes = torch.autograd.grad(result.sum(), senders, create_graph=True)
    loss = sum(slope.square().sum() for slope in slopes) + energies * result.square().sum()
    present = [each for each in inputs if each is not None]
    return [result, *slopes, *torch.autograd.grad(loss, present)]


@pytest.mark.parametrize("energies", [True, False])
@pytest.mark.parametrize("to_targets", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("hidden_layer", [True, False])
@pytest.mark.parametrize("num_messages", [0, 1, 300])
def test_compiled_loops_equal_double_precision(num_messages, hidden_layer, weighted, to_targets, energies):
    routes, tensors = _case(num_messages, hidden_layer=hidden_layer, weighted=weighted, to_targets=to_targets)
    found = _derivatives(compiled.pass_messages, routes, tensors, torch.float32, energies=energies)
    expected = _derivatives(_in_blocks, routes, tensors, torch.float64, energies=energies)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 2e-5 * other.norm()


def test_equal_runs_have_equal_bits():
    routes, tensors = _case(300, hidden_layer=True, weighted=True, to_targets=True)
    first, second = (_derivatives(compiled.pass_messages, routes, tensors, torch.float32) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_nan_is_not_hidden():
    routes, tensors = _case(30, hidden_layer=True, weighted=True, to_targets=False)
    tensors[2][7] = torch.nan
    terms = tuple(each.float() for each in tensors[:3])
    parts = Parameters(*(each.float() for each in tensors[4:]))
    result = compiled.pass_messages(routes, terms, tensors[3].float(), parts)
    assert result.isnan().any(dim=1).nonzero().flatten().tolist() == [7]


def test_parameters_that_do_not_learn_get_no_gradient():
    routes, tensors = _case(30, hidden_layer=True, weighted=True, to_targets=True, learns=False)
    terms, weight, *parts = tensors[:3], *(each.float().requires_grad_() for each in tensors[3:])
    terms = tuple(each.float().requires_grad_() for each in terms)
    compiled.pass_messages(routes, terms, weight, Parameters(*parts)).sum().backward()
    assert all(part.grad is None for part in parts)
    assert terms[0].grad is not None


def test_double_precision_takes_the_blocks():
    _, tensors = _case(3, hidden_layer=True, weighted=True, to_targets=True)
    assert not compiled.fits(tensors[:3])


def test_without_numba_messages_pass_after_one_warning(monkeypatch):
    def broken(name):
        raise ImportError(f"No module named 'numba', wanted by {name}")

    monkeypatch.setattr(message, "import_module", broken)
    message._compiled.cache_clear()
    routes, tensors = _case(30, hidden_layer=True, weighted=True, to_targets=True)
    try:
        with pytest.warns(UserWarning, match="no compiled loops.*numba") as caught:
            results = [_derivatives(message.pass_messages, routes, tensors, torch.float32)[0] for _ in range(2)]
    finally:
        message._compiled.cache_clear()
    assert len(caught) == 1
    assert torch.equal(results[0], _derivatives(_in_blocks, routes, tensors, torch.float32)[0])


def _bits():
    """Hash of all that the loops find."""
    routes, tensors = _case(300, hidden_layer=True, weighted=True, to_targets=True)
    found = _derivatives(compiled.pass_messages, routes, tensors, torch.float32)
    return hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in found)).hexdigest()


def test_a_process_that_compiles_finds_the_same_bits_as_one_that_reads_the_cache(tmp_path):
    command = [sys.executable, "-c", f"from {__name__} import _bits; print(_bits())"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (subprocess.check_output(command, env=environment, text=True) for _ in range(2))
    assert list(tmp_path.rglob("*.nbc")), "the first process left what it compiled"
    assert first == second


def test_without_a_folder_for_the_cache_loops_are_compiled_all_the_same(monkeypatch):
    def njit(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(caching.numba, "njit", njit)
    assert caching.cached(nogil=True)(abs)(-1) == 1
