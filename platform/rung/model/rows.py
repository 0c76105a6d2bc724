"""Compiled loops over the messages of a gated perceptron, for a CPU: values, and both derivatives.

A block of messages passes through the arithmetic of `rung.model.row_parts` while it lies in the processor's cache; only
the products with the hidden layer's matrix and with the last term's are left to BLAS.

The arguments are the tuples of `rung.model.arrays`; core and gate are the two planes of (2, rows, width) arrays.
"""

import numpy as np

from rung.model import row_parts
from rung.model.caching import cached
from rung.model.row_parts import (
    OPTIONS,
    add,
    add_rows,
    copy,
    gate,
    gate_gradient,
    gate_second,
    part,
    silu,
    silu_gradient,
    silu_second,
)

_BLOCK = 128
"""Messages handled at once: few enough that all their arrays stay in the second-level cache."""

_compiled = cached(row_parts, **OPTIONS)


@_compiled
def values(routing, terms, weight, perceptron, kept, result):
    """Sum the messages of each target, and keep of each what its derivatives need.

    Args:
        routing: of all messages.
        terms: what is summed before the perceptron.
        weight: (rows, feature_dim)
        perceptron: its parameters.
        kept: is filled.
        result: (num_targets, feature_dim) is added to.
    """
    hidden_dim = terms.matrix.shape[1]
    third = np.empty((2, _BLOCK, hidden_dim), np.float32)
    opened = np.empty((_BLOCK, hidden_dim), np.float32)
    for start in range(0, len(routing.target), _BLOCK):
        stop = min(start + _BLOCK, len(routing.target))
        if perceptron.matrix.shape[1] == 0:
            _gather(routing, terms, start, third, kept.normal[:, start:stop])
        else:
            _gather(routing, terms, start, third, kept.inputs[:, start:stop])
            for half in range(2):
                silu(kept.inputs[half, start:stop], opened[: stop - start])
                np.dot(opened[: stop - start], perceptron.matrix[half], kept.normal[half, start:stop])
        gate(routing, weight, perceptron, kept, start, stop, result)


@_compiled
def gradients(routing, terms, weight, perceptron, kept, passed, found):
    """First derivative.

    Starts from `passed`, with all else as for `values`; `found` is added to, but its features and, if it has rows, its
    `pulled` are filled.
    """
    hidden_dim, width = terms.matrix.shape[1], weight.shape[1]
    learns = found.perceptron.scale.shape[0] > 0
    back = np.empty((2, _BLOCK, width), np.float32)
    opened = np.empty((_BLOCK, hidden_dim), np.float32)
    by_hidden = np.empty((2, _BLOCK, hidden_dim), np.float32)
    product = np.empty(perceptron.matrix.shape[1:], np.float32)
    for start in range(0, len(routing.target), _BLOCK):
        stop = min(start + _BLOCK, len(routing.target))
        rows = stop - start
        gate_gradient(routing, weight, perceptron, kept, passed.by_sums, start, stop, back, found)
        if passed.by_outputs.shape[1] > 0:
            for half in range(2):
                add(back[half, :rows], passed.by_outputs[half, start:stop])
        if perceptron.matrix.shape[1] == 0:
            _scatter(routing, terms, start, stop, back, found.terms)
            continue
        for half in range(2):
            by_x = by_hidden[half, :rows]
            np.dot(back[half, :rows], perceptron.matrix[half].T, by_x)
            if found.pulled.shape[1] > 0:
                found.pulled[half, start:stop] = by_x
            silu_gradient(kept.inputs[half, start:stop], by_x, opened[:rows])
            if passed.by_inputs.shape[1] > 0:
                add(by_x, passed.by_inputs[half, start:stop])
            if learns:
                np.dot(opened[:rows].T, back[half, :rows], product)
                add(found.perceptron.matrix[half], product)
                add_rows(found.perceptron.bias[half], back[half, :rows])
        _scatter(routing, terms, start, stop, by_hidden, found.terms)


@_compiled
def second_gradients(routing, terms, weight, perceptron, kept, passed, along, found):
    """Second derivative: of <first derivative, directions> by all that it is made of.

    `passed` holds what the first derivative started from and the `pulled` that it found; `along` holds the directions.
    `found` is added to, its `by_inputs` and `by_outputs` filled; the terms get theirs through these.
    """
    hidden_dim, width = terms.matrix.shape[1], weight.shape[1]
    learns = found.perceptron.scale.shape[0] > 0
    back = np.empty((2, _BLOCK, width), np.float32)
    outputs_dot = np.empty((2, _BLOCK, width), np.float32)
    inputs_dot = np.empty((2, _BLOCK, hidden_dim), np.float32)
    slopes = np.empty((2, _BLOCK, hidden_dim), np.float32)
    product = np.empty(perceptron.matrix.shape[1:], np.float32)
    for start in range(0, len(routing.target), _BLOCK):
        stop = min(start + _BLOCK, len(routing.target))
        rows = stop - start
        if perceptron.matrix.shape[1] == 0:
            _gather(routing, along.terms, start, slopes, outputs_dot[:, :rows])
        else:
            _gather(routing, along.terms, start, slopes, inputs_dot[:, :rows])
            for half in range(2):
                x_dot, by_x = inputs_dot[half, :rows], found.by_inputs[half, start:stop]
                pulled = passed.pulled[half, start:stop]
                silu_second(kept.inputs[half, start:stop], x_dot, pulled, by_x, slopes[half, :rows])
                np.dot(x_dot, perceptron.matrix[half], outputs_dot[half, :rows])
        gradient = passed.by_sums, along.weight
        gate_second(routing, weight, perceptron, kept, gradient, start, stop, outputs_dot, back, found)
        if learns and perceptron.matrix.shape[1] > 0:
            for half in range(2):
                np.dot(inputs_dot[half, :rows].T, back[half, :rows], product)
                add(found.perceptron.matrix[half], product)
        if found.terms.matrix.shape[0] > 0:
            by_hidden = slopes if perceptron.matrix.shape[1] > 0 else back
            _fold(routing.shared, by_hidden, rows)
            _add_matrix(found.terms.matrix, by_hidden, _own(along.terms.features, routing.shared, start, stop))


@part
def _own(features, shared, start, stop):
    """Features of some messages."""
    return features[start // shared : stop // shared]


@part
def _gather(routing, terms, start, third, out):
    """Sum the terms of some messages; `third` is room for the last one."""
    width, shared = out.shape[2], routing.shared
    features = _own(terms.features, shared, start, start + out.shape[1])
    for half in range(2):
        np.dot(features, terms.matrix[half].T, third[half, : len(features)])
    for row in range(out.shape[1]):
        one = terms.first[routing.first[start + row]]
        two = terms.second[routing.second[start + row]]
        for half in range(2):
            to, three = out[half, row], third[half, row // shared]
            for j in range(width):
                to[j] = one[half * width + j] + two[half * width + j] + three[j]


@part
def _scatter(routing, terms, start, stop, values, found):
    """Add the gradients of some messages to those of their terms; `values` are spoilt."""
    width, shared = values.shape[2], routing.shared
    for row in range(stop - start):
        one = found.first[routing.first[start + row]]
        two = found.second[routing.second[start + row]]
        for half in range(2):
            value = values[half, row]
            for j in range(width):
                one[half * width + j] += value[j]
            for j in range(width):
                two[half * width + j] += value[j]
    _fold(shared, values, stop - start)
    by_features = _own(found.features, shared, start, stop)
    np.dot(values[0, : len(by_features)], terms.matrix[0], by_features)
    add(by_features, np.dot(values[1, : len(by_features)], terms.matrix[1]))
    if found.matrix.shape[0] > 0:
        _add_matrix(found.matrix, values, _own(terms.features, shared, start, stop))


@part
def _fold(shared, values, rows):
    """Sum the rows of messages that share their last term; the sums come first."""
    if shared > 1:
        for half in range(2):
            for row in range(rows // shared):
                copy(values[half, row], values[half, row * shared])
                for other in range(row * shared + 1, (row + 1) * shared):
                    add(values[half, row], values[half, other])


@part
def _add_matrix(total, by_third, features):
    """Add what some messages say of the last term's matrix."""
    for half in range(2):
        add(total[half], np.dot(by_third[half, : len(features)].T, features))
