"""Sums of messages and their derivatives on a CPU in float32: what runs the loops of `rung.model.rows`.

A training step spends memory on three arrays per message, where `rung.model.blocks` spends time: the normalised outputs
of the hidden layer, and in the second derivative the gradients by its inputs and outputs. So no matrix product is
computed twice. The outputs stand in the autograd graph as a result of their own: the gradient by them which the second
derivative finds waits there for the first derivative, and both go back through the hidden layer as one.

The loops run on one thread, whatever torch has: more cores are put to use as more ranks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 # pyright: ignore[reportMissingImports] -- holds the BLAS that numba calls
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from rung.model import rows
from rung.model.arrays import Along, Found, Kept, Passed, Perceptron, Routing, Terms
from rung.model.gate import Parameters
from rung.model.routes import Inputs, Routes

# Products of a hundred rows are too small to share among threads: waiting would take longer than computing.
_BLAS = ThreadpoolController()


def fits(terms: tuple[Tensor, ...]) -> bool:
    """Whether the loops handle these: three terms of float32 on a CPU."""
    return len(terms) == 3 and all(term.dtype == torch.float32 and term.device.type == "cpu" for term in terms)


def pass_messages(routes: Routes, terms: tuple[Tensor, ...], weight: Tensor | None, parameters: Parameters) -> Tensor:
    """Do what `rung.model.message.pass_messages` does."""
    parts = parameters.parts
    if not routes.learns:
        parts = tuple(None if part is None else part.detach() for part in parts)
    result: Any = _Messages.apply(_routing(routes), routes, weight, *parts, *terms)
    return result[0]


def _routing(routes: Routes) -> Routing:
    every = torch.arange(routes.num_messages)
    indices = (*routes.terms, routes.weight, routes.target)
    return Routing(*((every if index is None else index.contiguous()).numpy() for index in indices))


class _Arrays:
    """Inputs as the loops take them. Without a weight, every message has the weight one."""

    def __init__(self, routing: Routing, weight: Tensor | None, tensors: Sequence[Any]) -> None:
        inputs = Inputs.of(weight, tensors)
        self.inputs = inputs
        self.width = width = inputs.parameters.scale.shape[1]
        self.routing = routing if weight is not None else routing._replace(weight=np.zeros_like(routing.weight))
        self.terms = Terms(*map(_array, inputs.terms))
        self.weight = np.ones((1, width), np.float32) if weight is None else _array(weight)
        self.perceptron = _perceptron(inputs.parameters)

    @property
    def arguments(self) -> tuple[Any, Any, Any, Any]:
        return self.routing, self.terms, self.weight, self.perceptron

    def zeros(self, *, with_parameters: bool, by_sums: Any, by_outputs: Any, pulled: Any) -> Found:
        """Room for gradients by the inputs, and what else is found."""
        shape = None if with_parameters else 0
        perceptron = Perceptron(*(np.zeros_like(part[:shape]) for part in self.perceptron))
        return Found(
            Terms(*map(np.zeros_like, self.terms)), np.zeros_like(self.weight), perceptron, by_sums, by_outputs, pulled
        )

    def results(self, found: Found, *, with_parameters: bool) -> tuple[Tensor | None, ...]:
        """Gradients in the order of autograd's arguments: weight, parameters, terms."""
        pairs = zip(self.inputs.parameters.parts, found.perceptron, strict=True)
        parts = [None if part is None or not with_parameters else torch.from_numpy(by) for part, by in pairs]
        weight = None if self.inputs.weight is None else torch.from_numpy(found.weight)
        return weight, *parts, *map(torch.from_numpy, found.terms)


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, routing: Routing, routes: Routes, weight: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        arrays = _Arrays(routing, weight, tensors)
        normal = torch.empty(2, routes.num_messages, arrays.width)
        inverse = torch.empty(2, routes.num_messages)
        result = torch.zeros(routes.num_targets, arrays.width)
        with _one_thread():
            rows.values(*arrays.arguments, Kept(normal.numpy(), inverse.numpy()), result.numpy())
        ctx.routing, ctx.shape = routing, result.shape
        ctx.save_for_backward(normal, inverse, weight, *tensors)
        ctx.set_materialize_grads(False)
        return result, normal

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (gradient, by_outputs), (normal, inverse, weight, *tensors) = gradients, ctx.saved_tensors
        if gradient is None:
            gradient = torch.zeros(ctx.shape)
        if torch.is_grad_enabled():  # create_graph: the gradient will be differentiated again
            found: Any = _MessagesGradient.apply(ctx.routing, inverse, gradient, normal, weight, *tensors)
            by_weight, *by_terms = found
            return None, None, by_weight, None, None, None, None, *by_terms
        with_parameters = any(ctx.needs_input_grad[3:7])
        arrays = _Arrays(ctx.routing, weight, tensors)
        nothing = _none(arrays.width)
        found = arrays.zeros(with_parameters=with_parameters, by_sums=nothing[0], by_outputs=nothing, pulled=nothing)
        passed = Passed(_array(gradient), nothing if by_outputs is None else _array(by_outputs), nothing)
        with _one_thread():
            rows.gradients(*arrays.arguments, Kept(normal.numpy(), inverse.numpy()), passed, found)
        return None, None, *arrays.results(found, with_parameters=with_parameters)


class _MessagesGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        routing: Routing,
        inverse: Tensor,
        gradient: Tensor,
        normal: Tensor,
        weight: Tensor | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        arrays = _Arrays(routing, weight, tensors)
        nothing = _none(arrays.width)
        pulled = torch.empty(2, normal.shape[1], arrays.perceptron.matrix.shape[1])
        found = arrays.zeros(with_parameters=False, by_sums=nothing[0], by_outputs=nothing, pulled=pulled.numpy())
        passed = Passed(_array(gradient), nothing, nothing)
        with _one_thread():
            rows.gradients(*arrays.arguments, Kept(normal.numpy(), inverse.numpy()), passed, found)
        ctx.routing = routing
        ctx.save_for_backward(inverse, pulled, gradient, normal, weight, *tensors)
        ctx.set_materialize_grads(False)
        by_weight, _, _, _, _, *by_terms = arrays.results(found, with_parameters=False)
        return by_weight, *by_terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- the decorator hides its names
        along_weight, *along_terms = directions
        inverse, pulled, gradient, normal, weight, *tensors = ctx.saved_tensors
        arrays = _Arrays(ctx.routing, weight, tensors)
        with_parameters = any(ctx.needs_input_grad[5:9])
        by_sums, by_outputs = torch.zeros_like(gradient), torch.empty_like(normal)
        found = arrays.zeros(
            with_parameters=with_parameters,
            by_sums=by_sums.numpy(),
            by_outputs=by_outputs.numpy(),
            pulled=_none(arrays.width),
        )
        along = Along(
            Terms(*(_along(u, term) for u, term in zip(along_terms, arrays.terms, strict=True))),
            _along(along_weight, arrays.weight),
        )
        passed = Passed(_array(gradient), _none(arrays.width), pulled.numpy())
        kept = Kept(normal.numpy(), inverse.numpy())
        with _one_thread():
            rows.second_gradients(*arrays.arguments, kept, passed, along, found)
        results = arrays.results(found, with_parameters=with_parameters)
        return None, None, by_sums, by_outputs, *results


def _perceptron(parameters: Parameters) -> Perceptron:
    scale, shift, matrix, bias = parameters.scale, parameters.shift, parameters.weight, parameters.bias
    width = scale.shape[1]
    return Perceptron(
        _array(scale),
        _array(shift),
        np.empty((2, 0, width), np.float32) if matrix is None else _array(matrix),
        np.zeros((2, width), np.float32) if bias is None else _array(bias),
    )


def _along(direction: Tensor | None, like: Any) -> Any:
    return np.zeros_like(like) if direction is None else _array(direction)


def _one_thread() -> Any:
    return _BLAS.limit(limits=1, user_api="blas")


def _none(width: int) -> Any:
    return np.empty((2, 0, width), np.float32)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()
