"""What the compiled loops of `rung.model.rows` read and fill: named tuples of numpy arrays, contiguous, of float32."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


class Routing(NamedTuple):
    """Rows that each message reads and is added to: (num_messages,) each."""

    first: Indices
    second: Indices
    third: Indices
    weight: Indices
    target: Indices


class Terms(NamedTuple):
    """What is summed before the perceptron, or gradients by it: (rows, 2 * hidden_dim) each."""

    first: Floats
    second: Floats
    third: Floats


class Perceptron(NamedTuple):
    """Parameters of a perceptron, or gradients by them; without hidden layer, matrix and bias have no rows.

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
        normal: (2, num_messages, feature_dim) result of the layer normalisations.
        inverse: (2, num_messages) inverse of the spread before it.
    """

    normal: Floats
    inverse: Floats


class Passed(NamedTuple):
    """Gradients that a derivative starts from.

    Attributes:
        by_sums: (num_targets, feature_dim)
        by_outputs: (2, num_messages, feature_dim) by the outputs, from the second derivative; or no rows.
        pulled: (2, num_messages, hidden_dim) by the silu of the hidden values, from the first derivative; or no rows.
    """

    by_sums: Floats
    by_outputs: Floats
    pulled: Floats


class Along(NamedTuple):
    """Directions: gradients by what the first derivative found."""

    terms: Terms
    weight: Floats


class Found(NamedTuple):
    """Gradients by everything; shapes as in `Passed`. The parameters' have no rows where they are not wanted."""

    terms: Terms
    weight: Floats
    perceptron: Perceptron
    by_sums: Floats
    by_outputs: Floats
    pulled: Floats
