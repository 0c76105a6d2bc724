"""Which rows make a message and where it goes; the inputs and gradients of a sum of messages."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from torch import Tensor

from rung.model.gate import Parameters


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
        shared: message r reads row r // shared of the last term, whatever form its index has: 1 or 2.
    """

    terms: tuple[Tensor | None, ...]
    weight: Tensor | None
    target: Tensor | None
    num_messages: int
    num_targets: int
    learns: bool
    shared: int = 1


@dataclass(frozen=True)
class Product:
    """A term that is yet to be computed, as the output of a linear layer without bias.

    Where it has as many rows as there are messages it is read once, and computing it block by block as it is read saves
    it and its gradients the way through memory.

    Attributes:
        features: (rows, features_dim)
        matrix: (2 * hidden_dim, features_dim), made of parameters alone.
    """

    features: Tensor
    matrix: Tensor

    def computed(self) -> Tensor:
        """(rows, 2 * hidden_dim)."""
        return F.linear(self.features, self.matrix)


@dataclass(frozen=True)
class Inputs:
    """The tensors that a sum of messages depends on.

    Attributes:
        weight: (rows, feature_dim), or None.
        parameters: of the perceptron.
        terms: each (rows, 2 * hidden_dim), core and gate side by side, what enters the perceptron's first silu.
    """

    weight: Tensor | None
    parameters: Parameters
    terms: tuple[Tensor, ...]

    @classmethod
    def of(cls, weight: Tensor | None, tensors: Sequence[Any]) -> Self:
        """Sort out the flat arguments that autograd insists on."""
        num_parameters = len(fields(Parameters))
        return cls(weight, Parameters(*tensors[:num_parameters]), tuple(tensors[num_parameters:]))


@dataclass(frozen=True)
class InputGradients:
    """By the inputs; None where not asked for or not there.

    Attributes:
        weight: as in `Inputs`.
        parameters: scale, shift, weight and bias of the perceptron.
        terms: as in `Inputs`.
    """

    weight: Tensor | None
    parameters: tuple[Tensor | None, ...]
    terms: tuple[Tensor, ...]
