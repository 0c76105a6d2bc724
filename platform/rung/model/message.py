"""Message passing: gather, gated perceptron and sum, as one operation with derivatives of its own.

There are many more messages (directed bonds, angles) than senders, and what autograd would keep of each one is most of
a step's memory and of its memory traffic. Here nothing of a message is kept: its perceptron is computed again where a
derivative needs it, block by block on a CPU (`rung.model.blocks`), in fused kernels on a GPU (`rung.model.fused`).
Compiled loops on a CPU in float32 (`rung.model.compiled`) keep four arrays instead, and no product is computed twice.
"""

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from torch import Tensor

from rung.model import blocks
from rung.model.blocks import hidden_of, rows_of
from rung.model.gate import Parameters, layer_norm
from rung.model.routes import Inputs, Product, Routes


def pass_messages(
    routes: Routes, terms: tuple[Tensor | Product, ...], weight: Tensor | None, parameters: Parameters
) -> Tensor:
    """Sum the gated perceptron of summed terms over the messages of each target.

    result[t] = sum over messages r with target t of w[r] * phi(sum over terms k of terms[k][routes.terms[k][r]])

    The parameters and a product's matrix take part in the last derivative only, and there are at most two: one taken
    under `create_graph=True` gives them none.

    Args:
        routes: rows of the parts of each message.
        terms: each (rows, 2 * hidden_dim), core and gate side by side, what enters the perceptron's first silu.
            The compiled loops take the last one as a product; all others compute it first.
        weight: (rows, feature_dim), or None.
        parameters: of the perceptron.

    Returns:
        (num_targets, feature_dim)
    """
    on_cpu = parameters.scale.device.type == "cpu"
    compiled = _compiled() if on_cpu else None
    if compiled is not None and compiled.fits(terms):
        return compiled.pass_messages(routes, terms, weight, parameters)
    sums = computed(terms)
    if on_cpu:
        return with_derivatives(blocks, routes, sums, weight, parameters)
    fused = _fused()
    if fused is not None and fused.fits(sums, parameters):
        return with_derivatives(fused, routes, sums, weight, parameters)
    return by_autograd(routes, sums, weight, parameters)


def computed(terms: tuple[Tensor | Product, ...]) -> tuple[Tensor, ...]:
    """The terms with their products computed, as all but the compiled loops take them."""
    return tuple(term.computed() if isinstance(term, Product) else term for term in terms)


@cache
def _compiled() -> ModuleType | None:
    """Import the compiled loops, which need numba, on their first use."""
    try:
        return import_module("rung.model.compiled")
    except Exception as error:  # noqa: BLE001 -- whatever a broken compiler raises, torch's own operations do
        warnings.warn(
            f"no compiled loops: {error}; on a CPU, messages take torch's own operations, at a third of the speed."
            " numba comes with Rung's dependencies: pip install numba",
            stacklevel=2,
        )
        return None


@cache
def _fused() -> ModuleType | None:
    """Import the kernels, which need Triton, on their first use."""
    try:
        return import_module("rung.model.fused")
    except ImportError as error:
        warnings.warn(
            f"no fused kernels: {error}; messages take torch's own operations, at half the speed and with six times the"
            " memory. Triton comes with the CUDA builds of torch",
            stacklevel=2,
        )
        return None


def by_autograd(routes: Routes, terms: tuple[Tensor, ...], weight: Tensor | None, parameters: Parameters) -> Tensor:
    """`pass_messages` in torch's own operations."""
    every = slice(None)
    halves = list(hidden_of(routes, terms, every).chunk(2, dim=1))
    for half in range(2):
        if parameters.weight is not None and parameters.bias is not None:
            halves[half] = torch.addmm(parameters.bias[half], F.silu(halves[half]), parameters.weight[half])
        halves[half] = layer_norm(halves[half], parameters.scale[half], parameters.shift[half])
    messages = F.silu(halves[0]) * torch.sigmoid(halves[1])
    if weight is not None:
        messages = messages * rows_of(weight, routes.weight, every)
    if routes.target is None:
        return messages
    return messages.new_zeros(routes.num_targets, messages.shape[1]).index_add(0, routes.target, messages)


def with_derivatives(
    engine: ModuleType, routes: Routes, terms: tuple[Tensor, ...], weight: Tensor | None, parameters: Parameters
) -> Tensor:
    """`pass_messages` by the three functions of `rung.model.blocks` or `rung.model.fused`."""
    parts = parameters.parts
    if not routes.learns:
        parts = tuple(None if part is None else part.detach() for part in parts)
    result: Any = _Messages.apply(engine, routes, weight, *parts, *terms)
    return result


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, engine: ModuleType, routes: Routes, weight: Tensor | None, *tensors: Tensor | None) -> Tensor:
        ctx.engine, ctx.routes = engine, routes
        ctx.save_for_backward(weight, *tensors)
        return engine.sums(routes, Inputs.of(weight, tensors))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (weight, *tensors) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient will be differentiated again
            found: Any = _MessagesGradient.apply(ctx.engine, ctx.routes, gradient, weight, *tensors)
            by_weight, *by_terms = found
            return None, None, by_weight, None, None, None, None, *by_terms
        with_parameters = any(ctx.needs_input_grad[3:7])
        found = ctx.engine.gradients(ctx.routes, Inputs.of(weight, tensors), gradient, with_parameters=with_parameters)
        return None, None, found.weight, *found.parameters, *found.terms


class _MessagesGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, engine: ModuleType, routes: Routes, gradient: Tensor, weight: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.engine, ctx.routes = engine, routes
        ctx.save_for_backward(gradient, weight, *tensors)
        ctx.set_materialize_grads(False)
        found = engine.gradients(routes, Inputs.of(weight, tensors), gradient, with_parameters=False)
        return found.weight, *found.terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- the decorator hides its names
        along_weight, *along_terms = directions
        gradient, weight, *tensors = ctx.saved_tensors
        inputs = Inputs.of(weight, tensors)
        by_gradient, found = ctx.engine.second_gradients(ctx.routes, inputs, gradient, along_weight, along_terms)
        return None, None, by_gradient, found.weight, *found.parameters, *found.terms
