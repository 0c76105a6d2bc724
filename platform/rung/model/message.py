"""Message passing: gather, gated perceptron and sum, by one of two ways with the same result.

There are many more messages (directed bonds, angles) than senders. On a CPU they are handled in blocks, by one
operation with derivatives of its own: what autograd would keep of each message is computed again, so a step needs
memory for its atoms and bonds alone, an eighth of upstream's. Its time is near that of plain autograd, 10 % less on one
CPU and 25 % more on another. On a GPU computing again costs far more than torch's own kernels (H100, 128 cells: 0.57 s
against 0.24 s a step, with 8 against 25 GB), so there the messages are plain autograd operations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from torch import Tensor

from rung.model.gate import Parameters, layer_norm, message, message_gradient, message_second_gradient

_BLOCK = 2048
"""Messages handled at once on a CPU. From 512 to 4096 the time of a step changes by 10 %, either way by machine."""


@dataclass(frozen=True)
class Routes:
    """Where the parts of each message come from and where it goes; None stands for row r itself.

    Attributes:
        terms: for each of the summed terms, (num_messages,) its row.
        weight: (num_messages,) row of the weight.
        target: (num_messages,) row that the message is added to.
        num_messages: how many.
        num_targets: rows of the result.
        learns: whether the parameters take part in derivatives; without, forces cost none of their gradients.
    """

    terms: tuple[Tensor | None, ...]
    weight: Tensor | None
    target: Tensor | None
    num_messages: int
    num_targets: int
    learns: bool


def pass_messages(routes: Routes, terms: tuple[Tensor, ...], weight: Tensor | None, parameters: Parameters) -> Tensor:
    """Sum the gated perceptron of summed terms over the messages of each target.

    result[t] = sum over messages r with target t of w[r] * phi(sum over terms k of terms[k][routes.terms[k][r]])

    On a CPU the parameters take part in the last derivative only, and there are at most two: one taken under
    `create_graph=True` gives them none.

    Args:
        routes: rows of the parts of each message.
        terms: each (rows, 2 * hidden_dim), core and gate side by side, what enters the perceptron's first silu.
        weight: (rows, feature_dim), or None.
        parameters: of the perceptron.

    Returns:
        (num_targets, feature_dim)
    """
    if terms[0].device.type == "cpu":
        return in_blocks(routes, terms, weight, parameters)
    return by_autograd(routes, terms, weight, parameters)


def by_autograd(routes: Routes, terms: tuple[Tensor, ...], weight: Tensor | None, parameters: Parameters) -> Tensor:
    """`pass_messages` in torch's own operations."""
    every = slice(None)
    halves = list(_hidden(routes, terms, every).chunk(2, dim=1))
    for half in range(2):
        if parameters.weight is not None and parameters.bias is not None:
            halves[half] = torch.addmm(parameters.bias[half], F.silu(halves[half]), parameters.weight[half])
        halves[half] = layer_norm(halves[half], parameters.scale[half], parameters.shift[half])
    messages = F.silu(halves[0]) * torch.sigmoid(halves[1])
    if weight is not None:
        messages = messages * _rows_of(weight, routes.weight, every)
    if routes.target is None:
        return messages
    return messages.new_zeros(routes.num_targets, messages.shape[1]).index_add(0, routes.target, messages)


def in_blocks(routes: Routes, terms: tuple[Tensor, ...], weight: Tensor | None, parameters: Parameters) -> Tensor:
    """`pass_messages` block by block, keeping nothing of a message for its derivatives."""
    tensors = (parameters.scale, parameters.shift, parameters.weight, parameters.bias)
    if not routes.learns:
        tensors = tuple(None if tensor is None else tensor.detach() for tensor in tensors)
    result: Any = _Messages.apply(routes, weight, *tensors, *terms)
    return result


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, routes: Routes, weight: Tensor | None, *tensors: Tensor | None) -> Tensor:
        ctx.routes = routes
        ctx.save_for_backward(weight, *tensors)
        inputs = _Inputs.of(weight, tensors)
        result = inputs.terms[0].new_zeros(routes.num_targets, inputs.parameters.scale.shape[1])
        for rows in _blocks(routes):
            block = message(_hidden(routes, inputs.terms, rows), _weight(routes, weight, rows), inputs.parameters)
            _add(result, routes.target, rows, block)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), routes, (weight, *tensors) = gradients, ctx.routes, ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient will be differentiated again
            by_weight, *by_terms = _MessagesGradient.apply(routes, gradient, weight, *tensors)  # type: ignore[misc]
            return None, by_weight, None, None, None, None, *by_terms
        with_parameters = any(ctx.needs_input_grad[2:6])
        found = _first_derivative(routes, gradient, _Inputs.of(weight, tensors), with_parameters=with_parameters)
        return None, found.weight, *found.parameters, *found.terms


class _MessagesGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, routes: Routes, gradient: Tensor, weight: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        ctx.routes = routes
        ctx.save_for_backward(gradient, weight, *tensors)
        ctx.set_materialize_grads(False)
        found = _first_derivative(routes, gradient, _Inputs.of(weight, tensors), with_parameters=False)
        return found.weight, *found.terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] -- the decorator hides its names
        along_weight, *along_terms = directions
        routes, (gradient, weight, *tensors) = ctx.routes, ctx.saved_tensors
        inputs = _Inputs.of(weight, tensors)
        sums, by_gradient = _Sums(inputs), torch.zeros_like(gradient)
        for rows in _blocks(routes):
            found = message_second_gradient(
                _hidden(routes, inputs.terms, rows),
                _weight(routes, weight, rows),
                inputs.parameters,
                _rows_of(gradient, routes.target, rows),
                (_hidden(routes, along_terms, rows), _weight(routes, along_weight, rows)),
            )
            _add(by_gradient, routes.target, rows, found.gradient)
            sums.add(routes, rows, found.hidden, found.weight, found.parameters)
        return None, by_gradient, sums.weight, *sums.parameters, *sums.terms


@dataclass(frozen=True)
class _Inputs:
    """The tensors that a sum of messages depends on."""

    weight: Tensor | None
    parameters: Parameters
    terms: tuple[Tensor, ...]

    @classmethod
    def of(cls, weight: Tensor | None, tensors: Sequence[Any]) -> Self:
        """Sort out the flat arguments that autograd insists on."""
        num_parameters = len(fields(Parameters))
        return cls(weight, Parameters(*tensors[:num_parameters]), tuple(tensors[num_parameters:]))


class _Sums:
    """Gradients by the inputs, summed over blocks."""

    def __init__(self, inputs: _Inputs) -> None:
        self.weight = None if inputs.weight is None else torch.zeros_like(inputs.weight)
        self.terms = [torch.zeros_like(term) for term in inputs.terms]
        self.parameters: list[Tensor | None] = [None] * len(fields(Parameters))

    def add(
        self, routes: Routes, rows: slice, hidden: Tensor, weight: Tensor | None, parameters: Parameters | None
    ) -> None:
        for total, index in zip(self.terms, routes.terms, strict=True):
            _add(total, index, rows, hidden)
        if self.weight is not None and weight is not None:
            _add(self.weight, routes.weight, rows, weight)
        if parameters is not None:
            parts = [getattr(parameters, field.name) for field in fields(Parameters)]
            pairs = zip(self.parameters, parts, strict=True)
            self.parameters = [part if total is None else total.add_(part) for total, part in pairs]


def _first_derivative(routes: Routes, gradient: Tensor, inputs: _Inputs, *, with_parameters: bool) -> _Sums:
    sums = _Sums(inputs)
    for rows in _blocks(routes):
        found = message_gradient(
            _hidden(routes, inputs.terms, rows),
            _weight(routes, inputs.weight, rows),
            inputs.parameters,
            _rows_of(gradient, routes.target, rows),
            with_parameters=with_parameters,
        )
        sums.add(routes, rows, found.hidden, found.weight, found.parameters)
    return sums


def _blocks(routes: Routes) -> Iterator[slice]:
    # One block of no rows where there is no message: the parameters still get a gradient, of zeros.
    for start in range(0, max(routes.num_messages, 1), _BLOCK):
        yield slice(start, min(start + _BLOCK, routes.num_messages))


def _hidden(routes: Routes, terms: Sequence[Tensor | None], rows: slice) -> Tensor:
    """Sum of the terms of each message of a block: (rows, 2 * hidden_dim)."""
    present = [(term, index) for term, index in zip(terms, routes.terms, strict=True) if term is not None]
    # Gathered terms come first, so that the first is a new tensor, which may be added to.
    (term, index), *others = sorted(present, key=lambda pair: pair[1] is None)
    total = _rows_of(term, index, rows)
    total = total.clone() if index is None else total
    for term, index in others:
        total += _rows_of(term, index, rows)
    return total


def _weight(routes: Routes, weight: Tensor | None, rows: slice) -> Tensor | None:
    return None if weight is None else _rows_of(weight, routes.weight, rows)


def _rows_of(tensor: Tensor, index: Tensor | None, rows: slice) -> Tensor:
    return tensor[rows] if index is None else tensor.index_select(0, index[rows])


def _add(total: Tensor, index: Tensor | None, rows: slice, part: Tensor) -> None:
    if index is None:
        total[rows] += part
    else:
        total.index_add_(0, index[rows], part)
