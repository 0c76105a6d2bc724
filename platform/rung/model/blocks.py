"""Sums of messages and their derivatives on a CPU, some thousand messages at once: nothing is kept of a message."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from rung.model.gate import Parameters, message, message_gradient, message_second_gradient
from rung.model.routes import InputGradients, Inputs, Routes

_BLOCK = 2048
"""Messages handled at once. From 512 to 4096 the time of a step changes by 10 %, either way by machine."""


def sums(routes: Routes, inputs: Inputs) -> Tensor:
    """Sum the messages of each target: (num_targets, feature_dim)."""
    result = inputs.terms[0].new_zeros(routes.num_targets, inputs.parameters.scale.shape[1])
    for rows in _blocks(routes):
        block = message(hidden_of(routes, inputs.terms, rows), _weight(routes, inputs.weight, rows), inputs.parameters)
        _add(result, routes.target, rows, block)
    return result


def gradients(routes: Routes, inputs: Inputs, gradient: Tensor, *, with_parameters: bool) -> InputGradients:
    """First derivative, from the gradient by the sums (num_targets, feature_dim)."""
    total = _Total(routes, inputs)
    for rows in _blocks(routes):
        found = message_gradient(
            hidden_of(routes, inputs.terms, rows),
            _weight(routes, inputs.weight, rows),
            inputs.parameters,
            rows_of(gradient, routes.target, rows),
            with_parameters=with_parameters,
        )
        total.add(rows, found.hidden, found.weight, found.parameters)
    return total.gradients()


def second_gradients(
    routes: Routes,
    inputs: Inputs,
    gradient: Tensor,
    along_weight: Tensor | None,
    along_terms: Sequence[Tensor | None],
) -> tuple[Tensor, InputGradients]:
    """Second derivative: by the gradient, and by the inputs.

    Args:
        routes: rows of the parts of each message.
        inputs: what the messages are made of.
        gradient: that `gradients` was given.
        along_weight: gradient by its result for the weight.
        along_terms: likewise for the terms; at least one is there.
    """
    total, by_gradient = _Total(routes, inputs), torch.zeros_like(gradient)
    for rows in _blocks(routes):
        found = message_second_gradient(
            hidden_of(routes, inputs.terms, rows),
            _weight(routes, inputs.weight, rows),
            inputs.parameters,
            rows_of(gradient, routes.target, rows),
            (hidden_of(routes, along_terms, rows), _weight(routes, along_weight, rows)),
        )
        _add(by_gradient, routes.target, rows, found.gradient)
        total.add(rows, found.hidden, found.weight, found.parameters)
    return by_gradient, total.gradients()


class _Total:
    """Gradients by the inputs, summed over blocks."""

    def __init__(self, routes: Routes, inputs: Inputs) -> None:
        self._routes = routes
        self._weight = None if inputs.weight is None else torch.zeros_like(inputs.weight)
        self._terms = tuple(torch.zeros_like(term) for term in inputs.terms)
        self._parameters: tuple[Tensor | None, ...] = (None,) * len(fields(Parameters))

    def add(self, rows: slice, hidden: Tensor, weight: Tensor | None, parameters: Parameters | None) -> None:
        for total, index in zip(self._terms, self._routes.terms, strict=True):
            _add(total, index, rows, hidden)
        if self._weight is not None and weight is not None:
            _add(self._weight, self._routes.weight, rows, weight)
        if parameters is not None:
            pairs = zip(self._parameters, parameters.parts, strict=True)
            self._parameters = tuple(
                part if total is None or part is None else total.add_(part) for total, part in pairs
            )

    def gradients(self) -> InputGradients:
        return InputGradients(self._weight, self._parameters, self._terms)


def hidden_of(routes: Routes, terms: Sequence[Tensor | None], rows: slice) -> Tensor:
    """Sum of the terms of some messages: (rows, 2 * hidden_dim)."""
    present = [(term, index) for term, index in zip(terms, routes.terms, strict=True) if term is not None]
    # Gathered terms come first, so that the first is a new tensor, which may be added to.
    (term, index), *others = sorted(present, key=lambda pair: pair[1] is None)
    total = rows_of(term, index, rows)
    total = total.clone() if index is None else total
    for term, index in others:
        total += rows_of(term, index, rows)
    return total


def rows_of(tensor: Tensor, index: Tensor | None, rows: slice) -> Tensor:
    """Rows of a tensor that some messages read."""
    return tensor[rows] if index is None else tensor.index_select(0, index[rows])


def _blocks(routes: Routes) -> Iterator[slice]:
    # One block of no rows where there is no message: the parameters still get a gradient, of zeros.
    for start in range(0, max(routes.num_messages, 1), _BLOCK):
        yield slice(start, min(start + _BLOCK, routes.num_messages))


def _weight(routes: Routes, weight: Tensor | None, rows: slice) -> Tensor | None:
    return None if weight is None else rows_of(weight, routes.weight, rows)


def _add(total: Tensor, index: Tensor | None, rows: slice, part: Tensor) -> None:
    if index is None:
        total[rows] += part
    else:
        total.index_add_(0, index[rows], part)
