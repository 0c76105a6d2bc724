"""Compiled loops against torch's own operations in double precision: values, both derivatives, bit for bit again."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch

from rung.model import blocks, caching, compiled, message
from rung.model.gate import Parameters
from rung.model.routes import Product, Routes

WIDTH, HIDDEN, FEATURES = 16, 24, 8
SENDERS, TARGETS = 70, 40


def _case(num_messages, *, hidden_layer, weighted, to_targets, learns=True, shared=1):
    """Routes, and the tensors: two terms, features of the third, weight, four parameters, matrix of the third."""
    generator = torch.Generator().manual_seed(num_messages)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def rows(number):
        return torch.randint(number, (num_messages,), generator=generator)

    width = HIDDEN if hidden_layer else WIDTH
    routes = Routes(
        terms=(rows(SENDERS), rows(SENDERS), None if shared == 1 else torch.arange(num_messages) // shared),
        weight=rows(SENDERS) if weighted else None,
        target=rows(TARGETS) if to_targets else None,
        num_messages=num_messages,
        num_targets=TARGETS if to_targets else num_messages,
        learns=learns,
        shared=shared,
    )
    terms = random(SENDERS, 2 * width), random(SENDERS, 2 * width), random(num_messages // shared, FEATURES)
    extra = (random(2, HIDDEN, WIDTH) / 5, random(2, WIDTH)) if hidden_layer else (None, None)
    weight = random(SENDERS, WIDTH) if weighted else None
    matrix = random(2 * width, FEATURES) / FEATURES**0.5
    return routes, (*terms, weight, random(2, WIDTH), random(2, WIDTH), *extra, matrix)


def _in_blocks(routes, terms, weight, parameters):
    return message.with_derivatives(blocks, routes, (*terms[:2], terms[2].computed()), weight, parameters)


def _inputs(tensors, dtype, frozen=()):
    """Leaves of autograd's graph, but for those at the places of `frozen`."""
    return [
        None if each is None else each.to(dtype).requires_grad_(place not in frozen)
        for place, each in enumerate(tensors)
    ]


def _result(function, routes, inputs):
    first, second, features, weight, *parts, matrix = inputs
    return function(routes, (first, second, Product(features, matrix)), weight, Parameters(*parts))


def _derivatives(function, routes, tensors, dtype, *, energies=True, frozen=()):
    """Result, its gradient by terms and weight, and that of a loss of both by everything that is not frozen."""
    inputs = _inputs(tensors, dtype, frozen)
    result = _result(function, routes, inputs)
    senders = [each for each in inputs[:4] if each is not None]
    slopes = torch.autograd.grad(result.sum(), senders, create_graph=True)
    loss = sum(slope.square().sum() for slope in slopes) + energies * result.square().sum()
    present = [each for each in inputs if each is not None and each.requires_grad]
    return [result, *slopes, *torch.autograd.grad(loss, present)]


def _assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= 2e-5 * other.norm()


@pytest.mark.parametrize("energies", [True, False])
@pytest.mark.parametrize("to_targets", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("hidden_layer", [True, False])
@pytest.mark.parametrize(("num_messages", "shared"), [(0, 1), (1, 1), (300, 1), (0, 2), (2, 2), (300, 2)])
def test_compiled_loops_equal_double_precision(num_messages, shared, hidden_layer, weighted, to_targets, energies):
    routes, tensors = _case(
        num_messages, hidden_layer=hidden_layer, weighted=weighted, to_targets=to_targets, shared=shared
    )
    found = _derivatives(compiled.pass_messages, routes, tensors, torch.float32, energies=energies)
    _assert_equal(found, _derivatives(_in_blocks, routes, tensors, torch.float64, energies=energies))


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("hidden_layer", [True, False])
@pytest.mark.parametrize("frozen", [(4, 5, 6, 7), (8,), (4, 5, 6, 7, 8)], ids=["perceptron", "matrix", "both"])
def test_what_is_frozen_leaves_the_other_gradients_as_they_are(frozen, hidden_layer, shared):
    routes, tensors = _case(300, hidden_layer=hidden_layer, weighted=True, to_targets=True, shared=shared)
    found = _derivatives(compiled.pass_messages, routes, tensors, torch.float32, frozen=frozen)
    _assert_equal(found, _derivatives(_in_blocks, routes, tensors, torch.float64, frozen=frozen))


@pytest.mark.parametrize("num_messages", [0, 300])
@pytest.mark.parametrize("hidden_layer", [True, False])
def test_a_first_derivative_alone_reaches_everything(hidden_layer, num_messages):
    routes, tensors = _case(num_messages, hidden_layer=hidden_layer, weighted=True, to_targets=True, shared=2)

    def gradients(function, dtype):
        inputs = _inputs(tensors, dtype)
        loss = _result(function, routes, inputs).square().sum()
        return torch.autograd.grad(loss, [each for each in inputs if each is not None])

    _assert_equal(gradients(compiled.pass_messages, torch.float32), gradients(_in_blocks, torch.float64))


@pytest.mark.parametrize("place", [0, 1, 2, 3], ids=["first", "second", "features", "weight"])
@pytest.mark.parametrize("hidden_layer", [True, False])
def test_one_gradient_alone_can_be_differentiated(hidden_layer, place):
    routes, tensors = _case(300, hidden_layer=hidden_layer, weighted=True, to_targets=True)

    def gradients(function, dtype):
        inputs = _inputs(tensors, dtype)
        result = _result(function, routes, inputs)
        (slope,) = torch.autograd.grad(result.square().sum(), inputs[place], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [each for each in inputs if each is not None])

    def by_autograd(routes, terms, weight, parameters):
        return message.by_autograd(routes, (*terms[:2], terms[2].computed()), weight, parameters)

    _assert_equal(gradients(compiled.pass_messages, torch.float32), gradients(by_autograd, torch.float64))


def test_equal_runs_have_equal_bits():
    routes, tensors = _case(300, hidden_layer=True, weighted=True, to_targets=True)
    first, second = (_derivatives(compiled.pass_messages, routes, tensors, torch.float32) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_nan_is_not_hidden():
    routes, tensors = _case(30, hidden_layer=True, weighted=True, to_targets=False)
    tensors[2][7] = torch.nan
    result = _result(compiled.pass_messages, routes, _inputs(tensors, torch.float32))
    assert result.isnan().any(dim=1).nonzero().flatten().tolist() == [7]


def test_parameters_that_do_not_learn_get_no_gradient():
    routes, tensors = _case(30, hidden_layer=True, weighted=True, to_targets=True, learns=False)
    inputs = _inputs(tensors, torch.float32)
    _result(compiled.pass_messages, routes, inputs).sum().backward()
    assert all(each.grad is None for each in inputs[4:])
    assert all(each.grad is not None for each in inputs[:4])


def test_the_loops_take_a_product_of_single_precision_alone():
    _, (first, second, features, *_, matrix) = _case(3, hidden_layer=True, weighted=True, to_targets=True)
    product = Product(features, matrix)
    assert not compiled.fits((first, second, product))
    assert compiled.fits((first.float(), second.float(), Product(features.float(), matrix.float())))
    assert not compiled.fits((first.float(), second.float(), product.computed().float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_precision_takes_a_product(dtype):
    routes, tensors = _case(30, hidden_layer=True, weighted=True, to_targets=True, shared=2)
    first, second, features, weight, *parts, matrix = (each.to(dtype) for each in tensors)
    terms, parameters = (first, second, Product(features, matrix)), Parameters(*parts)
    found = message.pass_messages(routes, terms, weight, parameters)
    expected = message.by_autograd(routes, (first, second, features @ matrix.T), weight, parameters)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


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


def test_without_triton_messages_pass_on_a_gpu_after_one_warning(monkeypatch):
    def broken(name):
        raise ImportError(f"No module named 'triton', wanted by {name}")

    monkeypatch.setattr(message, "import_module", broken)
    message._fused.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"no fused kernels.*triton.*half the speed") as caught:
            assert [message._fused() for _ in range(2)] == [None, None]
    finally:
        message._fused.cache_clear()
    assert len(caught) == 1


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


_PARTS = """
import numba

@numba.njit(forceinline=True)
def answer():
    return {}
"""
_CALLER = """
import parts
from rung.model.caching import cached

@cached(parts)
def ask():
    return parts.answer()

print(ask(), sum(ask.stats.cache_hits.values()))
"""


def test_a_changed_part_is_compiled_again(tmp_path):
    caller = tmp_path / "caller.py"
    caller.write_text(_CALLER)
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def ask(answer):
        (tmp_path / "parts.py").write_text(_PARTS.format(answer))
        os.utime(tmp_path / "parts.py", (answer, answer))
        return subprocess.check_output([sys.executable, str(caller)], env=environment, text=True).split()

    assert [ask(4), ask(4), ask(5), ask(5)] == [["4", "0"], ["4", "1"], ["5", "0"], ["5", "1"]]


def test_without_a_folder_for_the_cache_loops_are_compiled_all_the_same(monkeypatch):
    def njit(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(caching.numba, "njit", njit)
    assert caching.cached(nogil=True)(abs)(-1) == 1
