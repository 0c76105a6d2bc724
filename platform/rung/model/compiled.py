"""Sums of messages and their derivatives on a CPU in float32: what runs the loops of `rung.model.rows`.

A training step spends memory on four arrays per message, where `rung.model.blocks` spends time: the inputs and the
normalised outputs of the hidden layer, and in the second derivative the gradients by them. So no matrix product is
computed twice. Inputs and outputs stand in the autograd graph as results of their own: the gradients by them which the
second derivative finds wait there for the first derivative, and both go back through the first layers as one.

The last term is computed here, block by block, from its features and its matrix. Whole, it would pass through memory
five times, and its products would run at half of the speed that they have in the cache.

The loops run on one thread, whatever torch has: more cores are put to use as more ranks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 # pyright: ignore[reportMissingImports] -- holds the BLAS that numba calls
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from rung.model import rows
from rung.model.arrays import Along, Found, Kept, Passed, Perceptron, Routing, Terms
from rung.model.gate import Parameters
from rung.model.routes import Inputs, Product, Routes
from rung.model.workspace import Workspace

# Products of a hundred rows are too small to share among threads: waiting would take longer than computing.
_BLAS = ThreadpoolController()
_WORKSPACE = Workspace()


def fits(terms: Sequence[Tensor | Product]) -> bool:
    """Whether the loops handle these: two terms and a product, of float32 on a CPU."""
    if len(terms) != 3 or not isinstance(terms[2], Product):
        return False
    tensors = (*terms[:2], terms[2].features)
    return all(isinstance(each, Tensor) and each.dtype == torch.float32 and each.is_cpu for each in tensors)


def pass_messages(
    routes: Routes, terms: tuple[Tensor, Tensor, Product], weight: Tensor | None, parameters: Parameters
) -> Tensor:
    """Do what `rung.model.message.pass_messages` does."""
    first, second, third = terms
    of_parameters = (*parameters.parts, third.matrix)
    if not routes.learns:
        of_parameters = tuple(None if part is None else part.detach() for part in of_parameters)
    *parts, matrix = of_parameters
    result: Any = _Messages.apply(_routing(routes), routes, weight, *parts, first, second, third.features, matrix)
    return result[0]


def _routing(routes: Routes) -> Routing:
    every = torch.arange(routes.num_messages)
    first, second, weight, target = (
        (every if index is None else index.contiguous()).numpy()
        for index in (*routes.terms[:2], routes.weight, routes.target)
    )
    return Routing(first, second, routes.shared, weight, target)


class _Arrays:
    """Inputs as the loops take them. Without a weight, every message has the weight one."""

    def __init__(self, routing: Routing, weight: Tensor | None, tensors: Sequence[Any]) -> None:
        inputs = Inputs.of(weight, tensors)
        self.inputs = inputs
        self.width = width = inputs.parameters.scale.shape[1]
        self.routing = routing if weight is not None else routing._replace(weight=np.zeros_like(routing.weight))
        first, second, features, matrix = map(_array, inputs.terms)
        self.terms = Terms(first, second, features, matrix.reshape(2, -1, features.shape[1]))
        self.weight = np.ones((1, width), np.float32) if weight is None else _array(weight)
        self.perceptron = _perceptron(inputs.parameters)

    @property
    def arguments(self) -> tuple[Any, Any, Any, Any]:
        return self.routing, self.terms, self.weight, self.perceptron

    def room(self, learns: "_Learns", *, with_terms: bool) -> Found:
        """Room for gradients by the inputs."""
        shape = None if learns.parameters else 0
        perceptron = Perceptron(*(np.zeros_like(part[:shape]) for part in self.perceptron))
        first, second, features, matrix = self.terms
        shape = None if with_terms else 0
        terms = Terms(
            np.zeros_like(first[:shape]),
            np.zeros_like(second[:shape]),
            np.empty_like(features[:shape]),
            np.zeros_like(matrix[: None if learns.matrix else 0]),
        )
        nothing = _none(self.width)
        return Found(terms, np.zeros_like(self.weight), perceptron, nothing[0], nothing, nothing, nothing)

    def results(self, found: Found, learns: "_Learns") -> tuple[Tensor | None, ...]:
        """Gradients in the order of autograd's arguments: weight, parameters, matrix, first, second, features."""
        pairs = zip(self.inputs.parameters.parts, found.perceptron, strict=True)
        parts = [None if part is None or not learns.parameters else torch.from_numpy(by) for part, by in pairs]
        weight = None if self.inputs.weight is None else torch.from_numpy(found.weight)
        *terms, matrix = map(torch.from_numpy, found.terms)
        return weight, *parts, *terms, matrix.flatten(0, 1) if learns.matrix else None


class _Learns(NamedTuple):
    """Whose gradients are wanted."""

    parameters: bool
    matrix: bool

    @classmethod
    def of(cls, wanted: Sequence[bool]) -> Self:
        """From what autograd wants of the flat arguments that begin with the perceptron's parameters."""
        num_parameters = len(Perceptron._fields)
        return cls(any(wanted[:num_parameters]), wanted[-1])


_NOTHING = _Learns(parameters=False, matrix=False)


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, routing: Routing, routes: Routes, weight: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        arrays = _Arrays(routing, weight, tensors)
        inputs = _WORKSPACE.empty(2, routes.num_messages, arrays.perceptron.matrix.shape[1])
        normal = _WORKSPACE.empty(2, routes.num_messages, arrays.width)
        inverse = torch.empty(2, routes.num_messages)
        result = torch.zeros(routes.num_targets, arrays.width)
        with _one_thread():
            rows.values(*arrays.arguments, _kept(inputs, normal, inverse), result.numpy())
        ctx.routing, ctx.shape = routing, result.shape
        ctx.save_for_backward(inputs, normal, inverse, weight, *tensors)
        ctx.set_materialize_grads(False)
        return result, inputs, normal

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (gradient, *waiting), (inputs, normal, inverse, weight, *tensors) = gradients, ctx.saved_tensors
        if gradient is None:
            gradient = torch.zeros(ctx.shape)
        if torch.is_grad_enabled():  # create_graph: the gradient will be differentiated again
            found: Any = _MessagesGradient.apply(ctx.routing, inverse, gradient, inputs, normal, weight, *tensors)
            by_weight, *by_terms = found
            return None, None, by_weight, None, None, None, None, *by_terms, None
        arrays = _Arrays(ctx.routing, weight, tensors)
        learns = _Learns.of(ctx.needs_input_grad[3:])
        nothing = _none(arrays.width)
        by_inputs, by_outputs = (nothing if by is None else _array(by) for by in waiting)
        found = arrays.room(learns, with_terms=True)
        passed = Passed(_array(gradient), by_inputs, by_outputs, nothing)
        with _one_thread():
            rows.gradients(*arrays.arguments, _kept(inputs, normal, inverse), passed, found)
        return None, None, *arrays.results(found, learns)


class _MessagesGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        routing: Routing,
        inverse: Tensor,
        gradient: Tensor,
        inputs: Tensor,
        normal: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        arrays = _Arrays(routing, tensors[0], tensors[1:])
        nothing = _none(arrays.width)
        pulled = _WORKSPACE.empty(*inputs.shape)
        found = arrays.room(_NOTHING, with_terms=True)._replace(pulled=pulled.numpy())
        passed = Passed(_array(gradient), nothing, nothing, nothing)
        with _one_thread():
            rows.gradients(*arrays.arguments, _kept(inputs, normal, inverse), passed, found)
        ctx.routing = routing
        ctx.save_for_backward(inverse, pulled, gradient, inputs, normal, *tensors)
        ctx.set_materialize_grads(False)
        by_weight, _, _, _, _, *by_terms, _ = arrays.results(found, _NOTHING)
        return by_weight, *by_terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- the decorator hides its names
        along_weight, *along_terms = directions
        inverse, pulled, gradient, inputs, normal, weight, *tensors = ctx.saved_tensors
        arrays = _Arrays(ctx.routing, weight, tensors)
        learns = _Learns.of(ctx.needs_input_grad[6:])
        by_sums = torch.zeros_like(gradient)
        by_inputs, by_outputs = _WORKSPACE.empty(*inputs.shape), _WORKSPACE.empty(*normal.shape)
        found = arrays.room(learns, with_terms=False)._replace(
            by_sums=by_sums.numpy(), by_inputs=by_inputs.numpy(), by_outputs=by_outputs.numpy()
        )
        first, second, features = (_along(u, term) for u, term in zip(along_terms, arrays.terms[:3], strict=True))
        along = Along(Terms(first, second, features, arrays.terms.matrix), _along(along_weight, arrays.weight))
        nothing = _none(arrays.width)
        passed = Passed(_array(gradient), nothing, nothing, pulled.numpy())
        with _one_thread():
            rows.second_gradients(*arrays.arguments, _kept(inputs, normal, inverse), passed, along, found)
        by_weight, *by_parameters, _, _, _, by_matrix = arrays.results(found, learns)
        return None, None, by_sums, by_inputs, by_outputs, by_weight, *by_parameters, None, None, None, by_matrix


def _kept(inputs: Tensor, normal: Tensor, inverse: Tensor) -> Kept:
    return Kept(inputs.detach().numpy(), normal.detach().numpy(), inverse.numpy())


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
