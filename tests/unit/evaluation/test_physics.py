"""The physics gate: sound models pass, and planted faults do not."""

import dataclasses

import pytest
import torch

from rung.config.sections import ModelConfig
from rung.config.tree import ExportConfig
from rung.evaluation import physics
from rung.evaluation.export import export_model
from rung.evaluation.physics import PhysicsError, check_physics, require_physics
from rung.model import chgnet
from rung.model.weights import build, load
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.trainer import train


@pytest.fixture
def small():
    torch.manual_seed(0)
    return build(ModelConfig(feature_dim=12, num_radial=7, num_angular=5, num_blocks=3))


def broken(model):
    return {check.name for check in check_physics(model) if not check.holds}


def test_the_published_model_passes():
    checks = check_physics(load("0.3.0"))
    assert all(check.holds for check in checks), [check for check in checks if not check.holds]
    assert {check.unit for check in checks} >= {"eV/Å", "GPa"}
    assert all(check.scale > 0 for check in checks), "a law that compares nothing proves nothing"


def test_random_weights_pass_and_are_not_changed(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    assert not broken(small)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_a_detached_line_graph_is_caught(monkeypatch):
    original = chgnet.expand

    def detached(model, batch, vectors):
        bases = original(model, batch, vectors)
        return dataclasses.replace(bases, angles=bases.angles.detach())

    monkeypatch.setattr(chgnet, "expand", detached)
    found = broken(load("0.3.0"))  # random weights hardly feel angles
    assert {"forces are minus the gradient of the energy", "stress is the derivative by strain"} <= found


def test_a_flipped_sign_of_the_stress_is_caught(small, monkeypatch):
    original = chgnet.stress_from
    monkeypatch.setattr(chgnet, "stress_from", lambda *arguments: -original(*arguments))
    assert broken(small) == {"stress is the derivative by strain"}


def test_an_energy_divided_twice_is_caught(small, monkeypatch):
    original = physics.evaluate

    def divided(model, batch, **asked):
        found = original(model, batch, **asked)
        return dataclasses.replace(found, energy=found.energy / batch.num_atoms)

    monkeypatch.setattr(physics, "evaluate", divided)
    assert "twice the cell has the same energy per atom" in broken(small)


def test_a_step_at_the_cutoff_is_caught(small, monkeypatch):
    original = chgnet.expand

    def stepped(model, batch, vectors):
        bases = original(model, batch, vectors)
        return dataclasses.replace(bases, atom_graph=bases.atom_graph + 0.1)

    monkeypatch.setattr(chgnet, "expand", stepped)
    assert "the energy is smooth at the cutoffs" in broken(small)


def test_weights_that_are_not_finite_are_refused(small):
    with torch.no_grad():
        next(small.mlp.parameters()).fill_(float("nan"))
    with pytest.raises(PhysicsError, match="training is refused"):
        require_physics(small, "training")


def test_export_is_refused_and_writes_nothing(make_config, tmp_path, monkeypatch):
    config = make_config(training={"epochs": 0})
    train(config, LocalContext("cpu"))
    original = chgnet.stress_from
    monkeypatch.setattr(chgnet, "stress_from", lambda *arguments: -original(*arguments))
    output = tmp_path / "model" / "m.pth.tar"
    with pytest.raises(PhysicsError, match=r"export is refused.*stress"):
        export_model(ExportConfig(run=str(RunFolder.of(config).path), output=str(output)))
    assert not output.exists()
