"""The flat evaluation against upstream's own, and against physics."""

import numpy as np
import pytest
import torch
from chgnet.trainer.trainer import CombinedLoss
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from rung.config.preparation import GraphConfig
from rung.config.sections import ModelConfig
from rung.model import chgnet
from rung.model.chgnet import evaluate, unused_parameters
from rung.model.support import UnsupportedModelError
from rung.model.weights import build
from rung.units import EV_PER_CUBIC_ANGSTROM_IN_GPA

PROPERTIES = ("energy", "forces", "stress", "magmoms")
MIXTURES = {
    "one atom": ["iron"],
    "no angle": ["caesium", "xenon"],
    "mixed": ["manganese oxide", "iron", "xenon", "layered oxide"],
}


def _assert_close(found, expected, relative):
    """Compare by the largest component: single components may be near zero by symmetry."""
    scale = max(expected.abs().max().item(), 0.1)
    assert (found - expected).abs().max().item() <= relative * scale


@pytest.mark.parametrize("names", MIXTURES.values(), ids=MIXTURES.keys())
def test_predictions_equal_upstream(bundled, cells, to_batch, upstream, names):
    structures = [cells[name] for name in names]
    expected = upstream(bundled, structures)
    found = evaluate(bundled, to_batch(structures))
    for name in PROPERTIES:
        _assert_close(getattr(found, name), getattr(expected, name).detach(), 1e-4)


@pytest.mark.parametrize("names", MIXTURES.values(), ids=MIXTURES.keys())
def test_predictions_of_a_small_random_model_equal_upstream(small, cells, to_batch, upstream, names):
    structures = [cells[name] for name in names]
    expected = upstream(small, structures)
    found = evaluate(small, to_batch(structures))
    for name in PROPERTIES:
        _assert_close(getattr(found, name), getattr(expected, name).detach(), 1e-4)


def test_the_layout_for_a_gpu_gives_the_same_numbers_and_gradients(bundled, cells, to_batch, monkeypatch):
    """Its kernels in Triton's interpreter: test_kernels.py."""
    batch = to_batch([cells[name] for name in MIXTURES["mixed"]])

    def step():
        bundled.zero_grad(set_to_none=True)
        found = evaluate(bundled, batch, create_graph=True)
        sum(getattr(found, name).square().sum() for name in PROPERTIES).backward()
        gradients = [each.grad for each in bundled.parameters() if each.grad is not None]
        return [getattr(found, name).detach() for name in PROPERTIES] + gradients

    expected = step()
    monkeypatch.setattr(chgnet, "_for_kernels", lambda _: True)
    found = step()
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * (theirs.norm() + 0.1)


def test_other_cutoffs_equal_upstream(cells, to_batch, upstream):
    cutoffs = GraphConfig(atom_cutoff=5.0, bond_cutoff=2.4)
    model = build(ModelConfig(feature_dim=8, num_radial=5, num_angular=3, num_blocks=2, graph=cutoffs))
    structures = [cells["manganese oxide"], cells["layered oxide"]]
    expected = upstream(model, structures)
    found = evaluate(model, to_batch(structures, cutoffs=cutoffs))
    for name in PROPERTIES:
        _assert_close(getattr(found, name), getattr(expected, name).detach(), 1e-4)


@pytest.mark.parametrize("names", MIXTURES.values(), ids=MIXTURES.keys())
def test_gradients_equal_upstream(bundled, cells, to_batch, upstream, names):
    structures = [cells[name] for name in names]
    bundled.composition_model.fc.weight.requires_grad_(True)
    expected = upstream(bundled, structures)
    generator = torch.Generator().manual_seed(0)

    def label(values):
        return values.detach() + 0.3 * torch.randn(values.shape, generator=generator)

    targets = {"e": label(expected.energy), **{key: [label(v) for v in expected.raw[key]] for key in "fsm"}}
    loss = CombinedLoss(target_str="efsm", criterion="Huber")
    loss(targets, expected.raw)["loss"].backward()
    wanted = {name: parameter.grad for name, parameter in bundled.named_parameters()}
    bundled.zero_grad(set_to_none=True)

    batch = to_batch(structures)
    found = evaluate(bundled, batch, create_graph=True)
    sizes = batch.num_atoms.tolist()
    ours = {
        "e": found.energy,
        "f": found.forces.split(sizes),
        "s": list(found.stress),
        "m": found.magmoms.split(sizes),
    }
    loss(targets, ours)["loss"].backward()
    unused = set(unused_parameters(bundled))
    differences = {}
    for name, parameter in bundled.named_parameters():
        if name in unused:
            assert parameter.grad is None
            continue
        # Upstream skips layers without angles, so it leaves their gradient None where ours is zero.
        wanted[name] = torch.zeros_like(parameter) if wanted[name] is None else wanted[name]
        differences[name] = (parameter.grad - wanted[name]).norm().item()
    whole = torch.cat([wanted[name].flatten() for name in differences]).norm().item()
    assert sum(d**2 for d in differences.values()) ** 0.5 <= 1e-3 * whole
    # One parameter alone is less sharp: bonds on one line have an angle whose second derivative magnifies rounding.
    for name, difference in differences.items():
        assert difference <= 1e-2 * wanted[name].norm().item() + 1e-4 * whole, name


def test_unused_parameters_are_those_of_the_last_angle_update(bundled):
    names = unused_parameters(bundled)
    assert names
    assert all(name.startswith("angle_layers.2.") for name in names)


def test_energy_alone_trains_without_derivatives(small, cells, to_batch):
    found = evaluate(small, to_batch([cells["iron"]]), forces=False, stress=False, magmoms=False, create_graph=True)
    assert found.forces is None
    assert found.stress is None
    assert found.magmoms is None
    found.energy.sum().backward()
    assert small.mlp.layers[0].weight.grad.abs().max() > 0


def test_prediction_without_graph_is_detached(small, cells, to_batch):
    found = evaluate(small, to_batch([cells["manganese oxide"]]))
    assert not any(getattr(found, name).requires_grad for name in PROPERTIES)
    with torch.no_grad():
        again = evaluate(small, to_batch([cells["manganese oxide"]]))
    assert torch.equal(found.forces, again.forces)


def test_forces_are_the_slope_of_the_energy(bundled, cells, to_batch):
    model = bundled.double()
    cell = cells["layered oxide"]
    forces = evaluate(model, to_batch([cell], torch.float64)).forces
    step = 1e-4
    for atom, axis in ((0, 0), (2, 1), (3, 2)):
        energies = []
        for sign in (1, -1):
            positions = cell.cart_coords.copy()
            positions[atom, axis] += sign * step
            moved = Structure(cell.lattice, cell.species, positions, coords_are_cartesian=True)
            found = evaluate(model, to_batch([moved], torch.float64), forces=False, stress=False)
            energies.append(found.energy.item() * len(cell))
        assert forces[atom, axis].item() == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-6)


def test_stress_is_the_slope_of_the_energy_by_strain(bundled, cells, to_batch):
    model = bundled.double()
    cell = cells["layered oxide"]
    stress = evaluate(model, to_batch([cell], torch.float64)).stress[0]
    step = 1e-5
    for row, column in ((0, 0), (1, 1), (0, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += sign * step
            strained = Structure(cell.lattice.matrix @ strain, cell.species, cell.frac_coords)
            found = evaluate(model, to_batch([strained], torch.float64), forces=False, stress=False)
            energies.append(found.energy.item() * len(cell))
        slope = (energies[0] - energies[1]) / (2 * step) / cell.volume * EV_PER_CUBIC_ANGSTROM_IN_GPA
        assert stress[row, column].item() == pytest.approx(slope, abs=2e-5)


def test_second_derivatives_are_the_slope_of_the_first(small, cells, to_batch):
    """The gradient of a loss of forces by one parameter, against finite differences."""
    model = small.double()
    batch = to_batch([cells["manganese oxide"], cells["iron"]], torch.float64)
    for name in (
        "atom_conv_layers.0.twoBody_atom.bn1.weight",
        "bond_conv_layers.1.twoBody_bond.mlp_gate.layers.3.weight",
        "angle_layers.0.twoBody_bond.bn2.weight",
        "bond_weights_ag.weight",
        "angle_basis_expansion.fourier_expansion.frequencies",
    ):
        parameter = model.get_parameter(name)
        model.zero_grad(set_to_none=True)
        evaluate(model, batch, create_graph=True).forces.square().sum().backward()
        at = (0,) * parameter.dim()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[at] += sign * 1e-5
            values.append(evaluate(model, batch).forces.square().sum().item())
            with torch.no_grad():
                parameter[at] -= sign * 1e-5
        slope = (values[0] - values[1]) / 2e-5
        assert parameter.grad[at].item() == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_rotation_turns_forces_and_stress(bundled, cells, to_batch):
    model = bundled.double()
    cell = cells["manganese oxide"]
    turn = Rotation.random(random_state=1).as_matrix()
    turned = Structure(Lattice(cell.lattice.matrix @ turn), cell.species, cell.frac_coords)
    before, after = (evaluate(model, to_batch([s], torch.float64)) for s in (cell, turned))
    turn = torch.from_numpy(turn)
    assert torch.allclose(before.energy, after.energy, atol=1e-9)
    assert torch.allclose(before.magmoms, after.magmoms, atol=1e-9)
    assert torch.allclose(before.forces @ turn, after.forces, atol=1e-7)
    assert torch.allclose(turn.T @ before.stress[0] @ turn, after.stress[0], atol=1e-6)


def test_order_of_atoms_does_not_matter(bundled, cells, to_batch):
    model = bundled.double()
    cell = cells["manganese oxide"]
    order = np.random.default_rng(0).permutation(len(cell))
    shuffled = Structure.from_sites([cell[i] for i in order])
    before, after = (evaluate(model, to_batch([s], torch.float64)) for s in (cell, shuffled))
    assert torch.allclose(before.energy, after.energy, atol=1e-9)
    assert torch.allclose(before.forces[order], after.forces, atol=1e-8)
    assert torch.allclose(before.stress, after.stress, atol=1e-7)


def test_supercell_repeats_its_cell(bundled, cells, to_batch):
    model = bundled.double()
    cell = cells["layered oxide"]
    double = cell.make_supercell([2, 1, 1], in_place=False)
    before, after = (evaluate(model, to_batch([s], torch.float64)) for s in (cell, double))
    assert torch.allclose(before.energy, after.energy, atol=1e-9)
    assert torch.allclose(before.stress, after.stress, atol=1e-6)
    assert torch.allclose(before.forces.repeat_interleave(2, dim=0), after.forces, atol=1e-7)


def test_batch_mates_do_not_matter(bundled, cells, to_batch):
    names = list(cells)
    together = evaluate(bundled, to_batch([cells[name] for name in names]))
    alone = [evaluate(bundled, to_batch([cells[name]])) for name in names]
    _assert_close(together.energy, torch.cat([p.energy for p in alone]), 1e-5)
    _assert_close(together.forces, torch.cat([p.forces for p in alone]), 1e-4)
    _assert_close(together.stress, torch.cat([p.stress for p in alone]), 1e-4)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("conv_dropout", 0.1),
        ("mlp_first", False),
        ("non_linearity", "relu"),
        ("gMLP_norm", "batch"),
        ("readout_norm", None),
        ("mlp_out_bias", True),
        ("atom_conv_hidden_dim", [8, 8]),
        ("update_angle", False),
    ],
)
def test_unsupported_architectures_are_named(small, cells, to_batch, argument, value):
    small.model_args[argument] = value
    with pytest.raises(UnsupportedModelError, match=f"{argument}=.*allowed"):
        evaluate(small, to_batch([cells["iron"]]))


def test_an_extensive_reference_is_named(small, cells, to_batch):
    small.composition_model.is_intensive = False
    with pytest.raises(UnsupportedModelError, match=r"composition_model=AtomRef \(allowed: an intensive AtomRef"):
        evaluate(small, to_batch([cells["iron"]]))


def test_a_single_block_is_named(small, cells, to_batch):
    small.n_conv = 1
    with pytest.raises(UnsupportedModelError, match=r"n_conv=1 \(allowed: 2 and more\)"):
        evaluate(small, to_batch([cells["iron"]]))
