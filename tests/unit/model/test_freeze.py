"""Freezing by depth: what is frozen, what learns, and that frozen layers get no gradient."""

import pytest

from rung.model.chgnet import evaluate, unused_parameters
from rung.model.freeze import freeze, max_depth


def _trainable(model):
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith("composition_model.")
    }


def test_depth_0_leaves_all_but_the_unused(small):
    everything = {name for name, _ in small.named_parameters() if not name.startswith("composition_model.")}
    assert freeze(small, 0) == unused_parameters(small)
    assert _trainable(small) == everything - set(unused_parameters(small))


def test_depth_1_freezes_embeddings_and_bases(small):
    freeze(small, 1)
    left = _trainable(small)
    assert not any("embedding" in name or "basis" in name or "bond_weights" in name for name in left)
    assert any(name.startswith("atom_conv_layers.0.") for name in left)


def test_each_depth_freezes_one_more_block(small):
    for blocks in range(1, small.n_conv + 1):
        freeze(small, 1 + blocks)
        left = _trainable(small)
        for kind in ("atom_conv_layers", "bond_conv_layers", "angle_layers"):
            assert not any(name.startswith(f"{kind}.{block}.") for name in left for block in range(blocks))
        if blocks < small.n_conv:
            assert any(name.startswith(f"atom_conv_layers.{blocks}.") for name in left)


def test_deepest_leaves_the_readout(small):
    freeze(small, max_depth(small))
    assert {name.split(".")[0] for name in _trainable(small)} == {"readout_norm", "mlp", "site_wise"}


def test_freezing_less_thaws(small):
    freeze(small, max_depth(small))
    freeze(small, 0)
    assert small.atom_embedding.embedding.weight.requires_grad


def test_reference_is_left_alone(small):
    small.composition_model.fc.weight.requires_grad_(True)
    freeze(small, max_depth(small))
    assert small.composition_model.fc.weight.requires_grad


@pytest.mark.parametrize("depth", [-1, 5])
def test_depth_out_of_range_names_the_range(small, depth):
    with pytest.raises(ValueError, match=rf"freeze_depth is {depth}.*3 interaction blocks, so it is 0 to 4"):
        freeze(small, depth)


@pytest.mark.parametrize("depth", range(5))
def test_frozen_parameters_get_no_gradient_and_the_others_the_same(small, cells, to_batch, depth):
    batch = to_batch([cells["manganese oxide"], cells["xenon"]])

    def gradients():
        small.zero_grad(set_to_none=True)
        found = evaluate(small, batch, create_graph=True)
        (found.energy.sum() + found.forces.square().sum() + found.magmoms.sum()).backward()
        return {name: parameter.grad for name, parameter in small.named_parameters()}

    freeze(small, 0)
    full = gradients()
    frozen = freeze(small, depth)
    partial = gradients()
    assert all(partial[name] is None for name in frozen)
    for name in _trainable(small):
        assert partial[name] is not None, name
        assert (partial[name] - full[name]).abs().max() <= 1e-5 * full[name].abs().max() + 1e-6
