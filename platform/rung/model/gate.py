"""The arithmetic of one gated perceptron, with its first and second derivatives written out.

From hidden values h of core and gate to the message of an edge or an angle (gated MLP of Deng et al. 2023, Methods,
with upstream's layer normalisations):

    x = silu(h);  y = W x + b;  n = layer_norm(y);  message = w * silu(n_core) * sigmoid(n_gate)

where a perceptron without hidden layer has y = h, and w weights the message by the length of its bond. Forces are
derivatives, so training differentiates twice. Automatic differentiation keeps some forty arrays per message for that;
the formulas here keep none, and each quantity is computed once.

Everything is row by row: row r of each result depends on row r of the inputs alone, apart from the gradients of the
parameters, which are sums over rows. Core and gate are the two planes of (2, rows, width) tensors.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from torch import Tensor

_EPSILON = 1e-5
"""Of upstream's layer normalisations, which are torch's default."""


@dataclass(frozen=True)
class Parameters:
    """Of one gated perceptron, core first and gate second.

    Attributes:
        scale: (2, feature_dim) of the layer normalisations.
        shift: (2, feature_dim)
        weight: (2, hidden_dim, feature_dim) of the second linear layer, input first; None if there is none.
        bias: (2, feature_dim), or None.
    """

    scale: Tensor
    shift: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """All of them, in the order of the fields."""
        return self.scale, self.shift, self.weight, self.bias


def layer_norm(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Upstream's layer normalisation over the last axis, as an autograd operation."""
    return F.layer_norm(values, values.shape[-1:], scale, shift, _EPSILON)


class _Rows:
    """Intermediate values of some rows, shared by the message and its derivatives."""

    def __init__(self, hidden: Tensor, parameters: Parameters) -> None:
        self.parameters = parameters
        self.hidden = _planes(hidden)
        if parameters.weight is None or parameters.bias is None:
            self.outputs = self.hidden.contiguous()
        else:
            self.opening = torch.sigmoid(self.hidden)
            self.inputs = self.hidden * self.opening
            self.outputs = torch.baddbmm(parameters.bias[:, None], self.inputs, parameters.weight)
        width = self.outputs.shape[2:]
        self.normal, self.mean, self.inverse = torch.native_layer_norm(self.outputs, width, None, None, _EPSILON)
        core, gate = torch.addcmul(parameters.shift[:, None], self.normal, parameters.scale[:, None])
        self.sigmoid = torch.sigmoid(core)
        self.core = core.mul_(self.sigmoid)
        self.gate = gate.sigmoid_()

    def message(self) -> Tensor:
        """Unweighted messages: (rows, feature_dim)."""
        return self.core * self.gate

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Derivatives of silu at the core and of sigmoid at the gate."""
        return _silu_slope(self.core, self.sigmoid), _sigmoid_slope(self.gate)

    def through_norm(self, gradient: Tensor) -> Tensor:
        """Product with the derivative of the normalisation, which is a symmetric matrix."""
        result, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, self.outputs, self.outputs.shape[2:], self.mean, self.inverse, None, None, [True, False, False]
        )
        return result

    def input_slope(self) -> Tensor:
        """Derivative of the hidden layer's silu."""
        return _silu_slope(self.inputs, self.opening)


def message(hidden: Tensor, weight: Tensor | None, parameters: Parameters) -> Tensor:
    """Messages of some rows.

    Args:
        hidden: (rows, 2 * hidden_dim) sums that enter the perceptron, core and gate side by side.
        weight: (rows, feature_dim) weights of the messages, or None.
        parameters: of the perceptron.

    Returns:
        (rows, feature_dim)
    """
    result = _Rows(hidden, parameters).message()
    return result if weight is None else result.mul_(weight)


@dataclass(frozen=True)
class Gradients:
    """By everything that a message is made of, of its shape; None where not asked for or not there."""

    hidden: Tensor
    weight: Tensor | None
    parameters: Parameters | None


def message_gradient(
    hidden: Tensor, weight: Tensor | None, parameters: Parameters, gradient: Tensor, *, with_parameters: bool
) -> Gradients:
    """First derivative: from the gradient by the messages to that by their inputs.

    Args:
        hidden: as for `message`.
        weight: as for `message`.
        parameters: as for `message`.
        gradient: (rows, feature_dim) gradient by the messages.
        with_parameters: whether the parameters' gradients are wanted.
    """
    rows = _Rows(hidden, parameters)
    core_slope, gate_slope = rows.slopes()
    weighted = gradient if weight is None else gradient * weight
    by_normal = torch.stack((core_slope.mul_(rows.gate), gate_slope.mul_(rows.core))).mul_(weighted)
    by_outputs = rows.through_norm(by_normal * parameters.scale[:, None])
    return Gradients(
        hidden=_by_hidden(rows, by_outputs),
        weight=None if weight is None else rows.message().mul_(gradient),
        parameters=_by_parameters(rows, by_normal, by_outputs) if with_parameters else None,
    )


def _by_hidden(rows: _Rows, by_outputs: Tensor) -> Tensor:
    weight = rows.parameters.weight
    if weight is None:
        return _side_by_side(by_outputs)
    return _side_by_side(torch.bmm(by_outputs, weight.transpose(1, 2)) * rows.input_slope())


def _by_parameters(rows: _Rows, by_normal: Tensor, by_outputs: Tensor) -> Parameters:
    scale, shift = (by_normal * rows.normal).sum(dim=1), by_normal.sum(dim=1)
    if rows.parameters.weight is None:
        return Parameters(scale, shift)
    return Parameters(scale, shift, torch.bmm(rows.inputs.transpose(1, 2), by_outputs), by_outputs.sum(dim=1))


@dataclass(frozen=True)
class SecondGradients:
    """Of <gradient by inputs, directions>, by everything that it is made of, of its shape; None where not there."""

    gradient: Tensor
    hidden: Tensor
    weight: Tensor | None
    parameters: Parameters


def message_second_gradient(
    hidden: Tensor,
    weight: Tensor | None,
    parameters: Parameters,
    gradient: Tensor,
    directions: tuple[Tensor, Tensor | None],
) -> SecondGradients:
    """Second derivative: what a loss of the first derivative passes back.

    The first derivative contracted with directions (u, v) equals <gradient, change>, where `change` is how the messages
    move when hidden values move along u and weights along v. This function differentiates that product. In names,
    `x_dot` is the change of x, and `by_x` the derivative of the product by x.

    Args:
        hidden: as for `message`.
        weight: as for `message`.
        parameters: as for `message`.
        gradient: (rows, feature_dim) the gradient that `message_gradient` was given.
        directions: gradients by its results `hidden` and `weight`.
    """
    rows = _Rows(hidden, parameters)
    along_hidden = _planes(directions[0])
    if parameters.weight is None:
        inputs_dot, outputs_dot = None, along_hidden.contiguous()
    else:
        inputs_dot = along_hidden * rows.input_slope()
        outputs_dot = torch.bmm(inputs_dot, parameters.weight)
    normal_dot = rows.through_norm(outputs_dot)
    gated = _second_of_gate(rows, normal_dot * parameters.scale[:, None], weight, gradient, directions[1])
    by_outputs, by_outputs_dot = _second_of_norm(rows, gated, outputs_dot, normal_dot)
    scale = (gated.by_normal * rows.normal).addcmul_(gated.by_normal_dot, normal_dot).sum(dim=1)
    sums = Parameters(scale, gated.by_normal.sum(dim=1))
    if parameters.weight is None or inputs_dot is None:
        return SecondGradients(gated.change, _side_by_side(by_outputs), gated.by_weight, sums)
    back = parameters.weight.transpose(1, 2)
    by_hidden = torch.bmm(by_outputs, back).mul_(rows.input_slope())
    bent = torch.bmm(by_outputs_dot, back).mul_(along_hidden)
    by_hidden.addcmul_(bent, _silu_curvature(rows.inputs, rows.opening, rows.input_slope()))
    by_matrix = torch.bmm(rows.inputs.transpose(1, 2), by_outputs)
    by_matrix.baddbmm_(inputs_dot.transpose(1, 2), by_outputs_dot)
    sums = Parameters(scale, sums.shift, by_matrix, by_outputs.sum(dim=1))
    return SecondGradients(gated.change, _side_by_side(by_hidden), gated.by_weight, sums)


@dataclass(frozen=True)
class _SecondOfGate:
    """Of the weighted product of silu and sigmoid.

    Attributes:
        change: (rows, feature_dim) of the messages along the directions, which is the derivative by the gradient.
        by_weight: (rows, feature_dim), or None.
        by_normal: (2, rows, feature_dim) before the norm's scale.
        by_normal_dot: (2, rows, feature_dim) likewise.
    """

    change: Tensor
    by_weight: Tensor | None
    by_normal: Tensor
    by_normal_dot: Tensor


def _second_of_gate(
    rows: _Rows, scaled_dot: Tensor, weight: Tensor | None, gradient: Tensor, along_weight: Tensor | None
) -> _SecondOfGate:
    core, gate = rows.core, rows.gate
    core_dot, gate_dot = scaled_dot
    core_slope, gate_slope = rows.slopes()
    by_core, by_gate, by_both = core_slope * gate, core * gate_slope, core_slope * gate_slope
    change = (by_core * core_dot).addcmul_(by_gate, gate_dot)
    core_curve = _silu_curvature(core, rows.sigmoid, core_slope).mul_(gate)
    gate_curve = torch.sub(1, gate, alpha=2).mul_(by_gate)
    by_normal = torch.stack(
        (core_curve.mul_(core_dot).addcmul_(by_both, gate_dot), gate_curve.mul_(gate_dot).addcmul_(by_both, core_dot))
    )
    by_normal_dot = torch.stack((by_core, by_gate))
    if weight is None:
        return _SecondOfGate(change, None, by_normal.mul_(gradient), by_normal_dot.mul_(gradient))
    by_weight = gradient * change
    change = change.mul_(weight)
    by_normal.mul_(weight)
    if along_weight is not None:
        change.addcmul_(core * gate, along_weight)
        by_normal.addcmul_(by_normal_dot, along_weight)
    return _SecondOfGate(change, by_weight, by_normal.mul_(gradient), by_normal_dot.mul_(gradient * weight))


def _second_of_norm(
    rows: _Rows, gated: _SecondOfGate, outputs_dot: Tensor, normal_dot: Tensor
) -> tuple[Tensor, Tensor]:
    """By the outputs and by their change: the norm bends, as its slope depends on the outputs' mean and spread."""
    scale, normal, inverse = rows.parameters.scale[:, None], rows.normal, rows.inverse
    by_dot = gated.by_normal_dot * scale
    slant = (outputs_dot * normal).mean(dim=2, keepdim=True).mul_(inverse)
    pull = (by_dot * normal).mean(dim=2, keepdim=True).mul_(inverse)
    spread = (by_dot * normal_dot).mean(dim=2, keepdim=True).mul_(inverse)
    by_normal = (gated.by_normal * scale).addcmul_(slant, by_dot, value=-1).addcmul_(pull, outputs_dot, value=-1)
    by_outputs = rows.through_norm(by_normal).addcmul_(spread, normal, value=-1)
    return by_outputs, rows.through_norm(by_dot)


def _planes(side_by_side: Tensor) -> Tensor:
    """(rows, 2 * width) to (2, rows, width), a view."""
    return side_by_side.unflatten(1, (2, -1)).transpose(0, 1)


def _side_by_side(planes: Tensor) -> Tensor:
    """(2, rows, width) to (rows, 2 * width)."""
    return planes.transpose(0, 1).flatten(1)


def _sigmoid_slope(sigmoid: Tensor) -> Tensor:
    return torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1)


def _silu_slope(silu: Tensor, sigmoid: Tensor) -> Tensor:
    # d(z s) = s + z s (1 - s)
    return torch.addcmul(silu, sigmoid, torch.sub(1, silu))


def _silu_curvature(silu: Tensor, sigmoid: Tensor, slope: Tensor) -> Tensor:
    # d(s + z s (1 - s)) = (1 - s) (slope + s (1 - z s))
    return torch.sub(1, sigmoid).mul_(torch.addcmul(slope, sigmoid, torch.sub(1, silu)))
