"""Upstream's layers, typed, and their weights in the form that the flat evaluation multiplies with."""

from typing import cast

import torch
from chgnet.model import CHGNet
from chgnet.model.functions import MLP, GatedMLP
from chgnet.model.layers import AngleUpdate, AtomConv, BondConv
from torch import Tensor, nn

from rung.model.gate import Parameters


def atom_conv(model: CHGNet, depth: int) -> AtomConv:
    """Return the atom convolution of a block."""
    return cast("AtomConv", model.atom_conv_layers[depth])


def bond_conv(model: CHGNet, depth: int) -> BondConv:
    """Return the bond convolution of a block."""
    return cast("BondConv", model.bond_conv_layers[depth])


def angle_update(model: CHGNet, depth: int) -> AngleUpdate:
    """Return the angle update of a block."""
    return cast("AngleUpdate", model.angle_layers[depth])


def perceptron(layer: AtomConv | BondConv | AngleUpdate) -> GatedMLP:
    """Return the gated perceptron that makes a layer's messages."""
    return cast("GatedMLP", layer.twoBody_atom if isinstance(layer, AtomConv) else layer.twoBody_bond)


def first_layer(block: GatedMLP) -> tuple[Tensor, Tensor]:
    """First layers of core and gate as one: weight (2 * hidden_dim, input_dim) and bias (2 * hidden_dim,)."""
    core, gate = _linears(block.mlp_core)[0], _linears(block.mlp_gate)[0]
    return torch.cat((core.weight, gate.weight)), torch.cat((core.bias, gate.bias))


def after_first_layer(block: GatedMLP) -> Parameters:
    """Return what follows the first layer of a gated perceptron, core and gate stacked."""
    norms = cast("nn.LayerNorm", block.bn1), cast("nn.LayerNorm", block.bn2)
    scale, shift = torch.stack([norm.weight for norm in norms]), torch.stack([norm.bias for norm in norms])
    core, gate = _linears(block.mlp_core), _linears(block.mlp_gate)
    if len(core) == 1:
        return Parameters(scale, shift)
    weight = torch.stack((core[1].weight.T, gate[1].weight.T))
    return Parameters(scale, shift, weight, torch.stack((core[1].bias, gate[1].bias)))


def _linears(layers: MLP) -> list[nn.Linear]:
    return [layer for layer in layers.layers if isinstance(layer, nn.Linear)]
