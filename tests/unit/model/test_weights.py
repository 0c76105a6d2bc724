"""Where weights come from, and that plain chgnet loads what rung writes."""

import json
import subprocess
import sys

import pytest
import torch
from chgnet.model import CHGNet

from rung.config.preparation import GraphConfig
from rung.config.sections import ModelConfig
from rung.model.chgnet import evaluate
from rung.model.reference import reference_of, set_reference
from rung.model.support import UnsupportedModelError
from rung.model.weights import ModelFileError, build, initial_model, load, read_metadata, save_model

PLAIN_CHGNET = """
import json, sys
from chgnet.model import CHGNet, CHGNetCalculator
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
sys.modules["rung"] = None
model = CHGNet.from_file(sys.argv[1])
cell = Structure.from_file(sys.argv[2])
atoms = AseAtomsAdaptor.get_atoms(cell)
atoms.calc = CHGNetCalculator(model, use_device="cpu")
energy = atoms.get_potential_energy()
print("RESULT", json.dumps([float(model.predict_structure(cell)["e"]), float(energy) / len(cell)]))
"""


@pytest.mark.parametrize("name", ["0.3.0", "r2scan"])
def test_bundled_models_are_upstreams(name, capsys):
    model = load(name)
    assert capsys.readouterr().out == ""
    theirs = CHGNet.load(model_name=name, use_device="cpu", verbose=False).state_dict()
    ours = model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_build_has_the_configured_size(capsys):
    cutoffs = GraphConfig(atom_cutoff=5.0, bond_cutoff=2.5)
    model = build(ModelConfig(feature_dim=10, num_radial=6, num_angular=7, num_blocks=2, graph=cutoffs))
    assert capsys.readouterr().out == ""
    assert model.n_conv == 2
    assert model.bond_embedding.weight.shape == (10, 6)
    assert model.angle_embedding.weight.shape == (10, 7)
    assert model.graph_converter.atom_graph_cutoff == 5.0
    assert model.bond_basis_expansion.rbf_expansion_bg.smooth_cutoff.cutoff == 2.5
    assert {layer.weight.shape[0] for layer in model.mlp.layers if hasattr(layer, "weight")} == {10, 1}


def test_default_config_is_the_size_of_0_3_0():
    shapes = {name: value.shape for name, value in build(ModelConfig()).state_dict().items()}
    assert shapes == {name: value.shape for name, value in load("0.3.0").state_dict().items()}


def test_build_follows_torchs_seed():
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(initial_model(ModelConfig(feature_dim=4)).bond_embedding.weight)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


@pytest.mark.parametrize("kind", ["random", "0.3.0"])
def test_plain_chgnet_loads_what_rung_saves(small, cells, to_batch, tmp_path, kind):
    model = small if kind == "random" else load("0.3.0")
    energies = reference_of(model)
    energies += 1.25
    set_reference(model, energies)
    path = save_model(model, tmp_path / "exported" / "model.pth.tar", {"name": "test"})
    cell = cells["manganese oxide"]
    cell.to(filename=str(tmp_path / "cell.json"))
    expected = evaluate(model, to_batch([cell])).energy.item()
    command = [sys.executable, "-c", PLAIN_CHGNET, str(path), str(tmp_path / "cell.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, env={"PATH": ""})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("RESULT")[1])
    assert found == pytest.approx([expected, expected], abs=1e-5)
    again = load(path)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    assert read_metadata(path) == {"name": "test"}
    assert [file.name for file in path.parent.iterdir()] == ["model.pth.tar"]


def test_a_double_precision_model_is_stored_in_single(small, tmp_path):
    path = save_model(small.double(), tmp_path / "model.pth.tar", {})
    assert load(path).bond_embedding.weight.dtype is torch.float32


def test_a_failed_write_leaves_nothing(small, tmp_path, monkeypatch):
    path = save_model(small, tmp_path / "model.pth.tar", {"run": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("rung.model.weights.torch.save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(small, path, {"run": 2})
    assert read_metadata(path) == {"run": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(
        ModelFileError, match=r"no model file and no run at .*gone\.pth\.tar: give one of 0\.3\.0, r2scan"
    ):
        load(tmp_path / "gone.pth.tar")
    with pytest.raises(ModelFileError, match="is a folder"):
        load(tmp_path)


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "text.pth.tar"
    text.write_text("no weights")
    with pytest.raises(ModelFileError, match="not a file of weights"):
        load(text)
    other = tmp_path / "other.pth.tar"
    torch.save({"weights": torch.zeros(1)}, other)
    with pytest.raises(ModelFileError, match=r"not a CHGNet file: .* found \['weights'\]"):
        load(other)


class _Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a model file ran')",))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"model": _Bomb()}, tmp_path / "bomb.pth.tar")
    with pytest.raises(ModelFileError, match="without running code"):
        load(tmp_path / "bomb.pth.tar")


def test_weights_of_another_size_are_refused(small, tmp_path):
    state = small.as_dict()
    torch.save({"model": {**state, "model_args": {**state["model_args"], "bond_fea_dim": 5}}}, tmp_path / "m.pth.tar")
    with pytest.raises(ModelFileError, match=r"m\.pth\.tar: its state_dict does not fit its model_args"):
        load(tmp_path / "m.pth.tar")


def test_another_architecture_is_refused(small, tmp_path):
    state = small.as_dict()
    torch.save(
        {"model": {**state, "model_args": {**state["model_args"], "non_linearity": "gelu"}}}, tmp_path / "m.pth.tar"
    )
    with pytest.raises(UnsupportedModelError, match="non_linearity='gelu'"):
        load(tmp_path / "m.pth.tar")
