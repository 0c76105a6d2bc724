"""What the compiled loops of `rung.model.rows` read and fill: named tuples of numpy arrays, contiguous, of float32."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class Routing(NamedTuple):
    """Rows that each message reads and is added to, (num_messages,) each; how many in a row share the third term."""

    first: Indices
    second: Indices
    shared: int
    weight: Indices
    target: Indices


class Terms(NamedTuple):
    """What is summed before the perceptron, or gradients by it; without rows where they are not wanted.

    Attributes:
        first: (rows, 2 * hidden_dim)
        second: (rows, 2 * hidden_dim)
        features: (num_messages / shared, features_dim) what the third term is made of.
        matrix: (2, hidden_dim, features_dim) what makes it.
    """

    first: Floats
    second: Floats
    features: Floats
    matrix: Floats


class Perceptron(NamedTuple):
    """Parameters of a perceptron, or gradients by them; without hidden layer the matrix has no rows, the bias is 0.

    Attributes:
        scale: (2, feature_dim)
        shift: (2, feature_dim)
        matrix: (2, hidden_dim, feature_dim)
        bias: (2, feature_dim)
    """

    scale: Floats
    shift: Floats
    matrix: Floats
    bias: Floats


class Kept(NamedTuple):
    """What is kept of each message between derivatives.

    Attributes:
        inputs: (2, num_messages, hidden_dim) sums of the terms; without hidden layer no columns.
        normal: (2, num_messages, feature_dim) result of the layer normalisations.
        inverse: (2, num_messages) inverse of the spread before it.
    """

    inputs: Floats
    normal: Floats
    inverse: Floats


class Passed(NamedTuple):
    """Gradients that a derivative starts from.

    Attributes:
        by_sums: (num_targets, feature_dim)
        by_inputs: (2, num_messages, hidden_dim) by the sums of the terms, from the second derivative; or no rows.
        by_outputs: (2, num_messages, feature_dim) by the outputs, likewise.
        pulled: (2, num_messages, hidden_dim) by the silu of the hidden values, from the first derivative; or no rows.
    """

    by_sums: Floats
    by_inputs: Floats
    by_outputs: Floats
    pulled: Floats


class Along(NamedTuple):
    """Directions: gradients by what the first derivative found, and of its shapes.

    Attributes:
        terms: of first, second and features; the matrix is the matrix itself.
        weight: (rows, feature_dim)
    """

    terms: Terms
    weight: Floats


class Found(NamedTuple):
    """Gradients by everything, each of the shape of what it is by. What is not wanted has no rows.

    The last four are as in `Passed`: the second derivative finds the first three, the first derivative finds `pulled`.
    """

    terms: Terms
    weight: Floats
    perceptron: Perceptron
    by_sums: Floats
    by_inputs: Floats
    by_outputs: Floats
    pulled: Floats
