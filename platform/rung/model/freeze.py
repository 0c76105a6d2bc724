"""Freezing the early layers of a pretrained network, counted from the input.

Depth 0 freezes nothing, 1 the embeddings and bases, 1 + k also the first k interaction blocks (atom convolution k, bond
convolution k and angle update k). The deepest leaves only the readout: norm, energy perceptron and magnetic moments.
"""

from chgnet.model import CHGNet

from rung.model.chgnet import unused_parameters

_FIRST = (
    "atom_embedding.",
    "bond_embedding.",
    "bond_weights_ag.",
    "bond_weights_bg.",
    "angle_embedding.",
    "bond_basis_expansion.",
    "angle_basis_expansion.",
)
_BLOCK_PARTS = ("atom_conv_layers", "bond_conv_layers", "angle_layers")


def max_depth(model: CHGNet) -> int:
    """Return the deepest allowed freeze, which leaves only the readout trainable."""
    return 1 + model.n_conv


def depth_of(model: CHGNet, name: str) -> int:
    """The least `freeze_depth` that freezes a parameter; readout and reference, which none does, are one deeper.

    Unused parameters, which every depth freezes, count with their block.
    """
    if name.startswith(_FIRST):
        return 1
    for block in range(model.n_conv):
        if name.startswith(tuple(f"{kind}.{block}." for kind in _BLOCK_PARTS)):
            return 2 + block
    return max_depth(model) + 1


def freeze(model: CHGNet, depth: int) -> list[str]:
    """Stop the first layers from learning, and let all others learn.

    The reference energies are not touched: their mode decides about them (see `rung.model.reference`). The last angle
    update, which no prediction depends on, is frozen at every depth, so that data-parallel training never waits for
    its gradient. A frozen parameter gets no gradient, and none is computed for it.

    Args:
        model: network whose `requires_grad` flags are set.
        depth: 0 to `max_depth(model)`.

    Returns:
        names of the frozen parameters, in the model's order; with depth 0 only those that are unused.

    Raises:
        ValueError: the depth is out of range.
    """
    deepest = max_depth(model)
    if not 0 <= depth <= deepest:
        raise ValueError(
            f"freeze_depth is {depth}; this model has {model.n_conv} interaction blocks, so it is 0 to {deepest}:"
            f" 0 nothing, 1 embeddings and bases, 1 + k also the first k blocks, {deepest} all but the readout"
        )
    prefixes = _FIRST if depth >= 1 else ()
    blocks = range(depth - 1)
    prefixes += tuple(f"{kind}.{block}." for kind in _BLOCK_PARTS for block in blocks)
    unused = set(unused_parameters(model))
    frozen = []
    for name, parameter in model.named_parameters():
        if name.startswith("composition_model."):
            continue
        learns = name not in unused and not name.startswith(prefixes)
        parameter.requires_grad_(learns)
        if not learns:
            frozen.append(name)
    return frozen
