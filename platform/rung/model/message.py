"""Message passing: gather, gated perceptron and sum as one operation that keeps nothing per message.

There are many more messages (directed bonds, angles) than senders. What autograd would keep of each message for two
derivatives is computed again instead, so a step needs memory for its atoms and bonds alone. Messages are handled in
blocks that stay in the processor's cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from rung.model.gate import Parameters, message, message_gradient, message_second_gradient

_ROWS_ON_CPU = 2048
"""A block's arrays then fit in a core's share of cache; measured with tests/benchmarks/train_step.py."""

_ROWS_ON_GPU = 1 << 19
"""Enough to keep a GPU busy; a bound on the memory of one block."""


@dataclass(frozen=True)
class Routes:
    """Where the parts of each message come from and where it goes; None stands for row r itself.

    Attributes:
        terms: for each of the summed terms, (num_messages,) its row.
        weight: (num_messages,) row of the weight.
        target: (num_messages,) row that the message is added to.
        num_messages: how many.
        num_targets: rows of the result.
    """

    terms: tuple[Tensor | None, ...]
    weight: Tensor | None
    target: Tensor | None
    num_messages: int
    num_targets: int


def pass_messages(routes: Routes, terms: tuple[Tensor, ...], weight: Tensor | None, parameters: Parameters) -> Tensor:
    """Sum the gated perceptron of summed terms over the messages of each target.

    result[t] = sum over messages r with target t of w[r] * phi(sum over terms k of terms[k][routes.terms[k][r]])

    The result may be differentiated by terms and weight twice, and by the parameters once (before or after a
    derivative by terms or weight). A derivative by parameters must be the last: under `create_graph=True` they get none.

    Args:
        routes: rows of the parts of each message.
        terms: each (rows, 2 * hidden_dim), core and gate side by side, what enters the perceptron's first silu.
        weight: (rows, feature_dim), or None.
        parameters: of the perceptron.

    Returns:
        (num_targets, feature_dim)
    """
    tensors = (parameters.scale, parameters.shift, parameters.weight, parameters.bias)
    return _Messages.apply(routes, weight, *tensors, *terms)  # type: ignore[no-any-return]


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, routes: Routes, weight: Tensor | None, *tensors: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.routes = routes
        ctx.save_for_backward(weight, *tensors)
        parameters, terms = Parameters(*tensors[:4]), tensors[4:]
        result = terms[0].new_zeros(routes.num_targets, parameters.scale.shape[1])
        for rows in _blocks(routes, terms[0]):
            _add(
                result,
                routes.target,
                rows,
                message(_hidden(routes, terms, rows), _take(weight, routes.weight, rows), parameters),
            )
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        routes, (weight, *tensors) = ctx.routes, ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient will be differentiated again
            by_weight, *by_terms = _MessagesGradient.apply(routes, gradient, weight, *tensors)
            return None, by_weight, None, None, None, None, *by_terms
        with_parameters = any(ctx.needs_input_grad[2:6])
        by_weight, by_terms, sums = _first_derivative(
            routes, gradient, weight, tensors, with_parameters=with_parameters
        )
        return None, by_weight, *sums, *by_terms


class _MessagesGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, routes: Routes, gradient: Tensor, weight: Tensor | None, *tensors: Tensor | None) -> tuple:  # noqa: ANN401
        ctx.routes = routes
        ctx.save_for_backward(gradient, weight, *tensors)
        ctx.set_materialize_grads(False)
        by_weight, by_terms, _ = _first_derivative(routes, gradient, weight, tensors, with_parameters=False)
        return by_weight, *by_terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, along_weight: Tensor | None, *along_terms: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        routes, (gradient, weight, *tensors) = ctx.routes, ctx.saved_tensors
        parameters, terms = Parameters(*tensors[:4]), tensors[4:]
        by_gradient = torch.zeros_like(gradient)
        by_weight = None if weight is None else torch.zeros_like(weight)
        by_terms = [torch.zeros_like(term) for term in terms]
        sums = _Sums()
        for rows in _blocks(routes, terms[0]):
            found = message_second_gradient(
                _hidden(routes, terms, rows),
                _take(weight, routes.weight, rows),
                parameters,
                _take(gradient, routes.target, rows),
                (_hidden(routes, along_terms, rows), _take(along_weight, routes.weight, rows)),
            )
            _add(by_gradient, routes.target, rows, found.gradient)
            _add(by_weight, routes.weight, rows, found.weight)
            for total, index in zip(by_terms, routes.terms, strict=True):
                _add(total, index, rows, found.hidden)
            sums.add(found.parameters)
        return None, by_gradient, by_weight, *sums.totals, *by_terms


def _first_derivative(
    routes: Routes,
    gradient: Tensor,
    weight: Tensor | None,
    tensors: tuple[Tensor | None, ...],
    *,
    with_parameters: bool,
) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
    """Gradient by weight, by each term and by each parameter."""
    parameters, terms = Parameters(*tensors[:4]), tensors[4:]
    by_weight = None if weight is None else torch.zeros_like(weight)
    by_terms = [torch.zeros_like(term) for term in terms]
    sums = _Sums()
    for rows in _blocks(routes, terms[0]):
        found = message_gradient(
            _hidden(routes, terms, rows),
            _take(weight, routes.weight, rows),
            parameters,
            _take(gradient, routes.target, rows),
            with_parameters=with_parameters,
        )
        _add(by_weight, routes.weight, rows, found.weight)
        for total, index in zip(by_terms, routes.terms, strict=True):
            _add(total, index, rows, found.hidden)
        sums.add(found.parameters)
    return by_weight, by_terms, sums.totals


class _Sums:
    """Gradients of the parameters, summed over blocks."""

    def __init__(self) -> None:
        self.totals: list[Tensor | None] = [None] * len(fields(Parameters))

    def add(self, parameters: Parameters | None) -> None:
        if parameters is None:
            return
        for index, field in enumerate(fields(Parameters)):
            part, total = getattr(parameters, field.name), self.totals[index]
            self.totals[index] = part if total is None else total.add_(part)


def _blocks(routes: Routes, like: Tensor) -> Iterator[slice]:
    size = _ROWS_ON_CPU if like.device.type == "cpu" else _ROWS_ON_GPU
    # One block of no rows where there is no message: the parameters still get a gradient, of zeros.
    for start in range(0, max(routes.num_messages, 1), size):
        yield slice(start, min(start + size, routes.num_messages))


def _hidden(routes: Routes, terms: tuple[Tensor | None, ...], rows: slice) -> Tensor:
    """Sum of the terms of each message of a block: (rows, 2 * hidden_dim)."""
    total: Tensor | None = None
    for term, index in zip(terms, routes.terms, strict=True):
        part = _take(term, index, rows)
        if part is None:
            continue
        # A gathered part is a new tensor, and may be added to; a slice belongs to its term.
        total = part if total is None else (total.add_(part) if owned else total + part)
        owned = index is not None or total is not part
    if total is None:
        raise ValueError("messages were differentiated by none of their terms")
    return total


def _take(tensor: Tensor | None, index: Tensor | None, rows: slice) -> Tensor | None:
    if tensor is None:
        return None
    return tensor[rows] if index is None else tensor.index_select(0, index[rows])


def _add(total: Tensor | None, index: Tensor | None, rows: slice, part: Tensor | None) -> None:
    if total is None or part is None:
        return
    if index is None:
        total[rows] += part
    else:
        total.index_add_(0, index[rows], part)
