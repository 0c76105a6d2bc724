"""The road on real first-principles data: MatPES elements and Materials Project frames."""

import json

import numpy as np
import pytest
from chgnet.model import CHGNet
from pymatgen.core import Lattice, Structure

from data_prep.convert import prepare
from rung.config.tree import EvaluateConfig, PrepareConfig, TrainConfig
from rung.data.dataset import ShardDataset
from rung.evaluation.evaluate import evaluate_model
from rung.evaluation.phases import judge_phases
from rung.model.weights import load
from rung.training.context import LocalContext
from rung.training.trainer import train

MATPES = "matpes-element-refs/MatPES-{}-Element-Refs.json.gz"


@pytest.fixture(scope="module")
def matpes(shared_data, tmp_path_factory):
    """Both MatPES sets as shards."""
    folder = tmp_path_factory.mktemp("matpes")
    for functional in ("PBE", "r2SCAN"):
        source = {"kind": "matpes", "path": str(shared_data / MATPES.format(functional))}
        prepare(PrepareConfig.model_validate({"output": str(folder / functional), "source": source}))
    return folder


def test_materials_project_frames_become_shards(shared_data, tmp_path):
    source = {"kind": "mptrj", "path": str(shared_data / "derived-mptrj-format/mp_tasks_in_mptrj_format.json.gz")}
    summary = prepare(PrepareConfig.model_validate({"output": str(tmp_path / "mp"), "source": source}))
    assert (summary.records_read, summary.records_kept) == (780, 730)
    assert ShardDataset(tmp_path / "mp").index.num_atoms.sum() == 12518


def test_the_two_functionals_share_their_split(matpes):
    sets = [ShardDataset(matpes / functional) for functional in ("PBE", "r2SCAN")]
    trained, tested = (
        {bytes(name) for name in dataset.index.material_id[dataset.select(split)]}
        for dataset, split in zip(sets, ("train", "test"), strict=True)
    )
    assert trained
    assert tested
    assert not trained & tested


def test_fine_tuned_model_gives_the_same_numbers_in_plain_chgnet(matpes, tmp_path):
    config = TrainConfig.model_validate(
        {
            "run": {"name": "tune", "storage": str(tmp_path)},
            "data": {"path": str(matpes / "r2SCAN")},
            "batch": {"structures": 40},
            "model": {"init": "0.3.0", "freeze_depth": 4},
            "reference": {"start_limit": None},  # each test material is an element that no training record has
            "loss": {"energy": 3, "force": 1, "stress": 0.1, "magmom": 1},
            "training": {"epochs": 1},
            "tracking": {"kind": "off"},
        }
    )
    summary = train(config, LocalContext("cpu"))
    reference = json.loads((tmp_path / "tune" / "reference.json").read_text())
    assert reference["fit"]["mae_after"] < 0.01, "one record per element: the fit passes through it"
    assert reference["fit"]["rank"] == summary.num_records["train"]

    errors = evaluate_model(
        EvaluateConfig.model_validate(
            {"model": summary.model, "output": str(tmp_path / "e"), "data": {"path": str(matpes / "r2SCAN")}}
        )
    ).errors
    expected = {name: value for name, value in summary.best["test"].items() if name != "loss"}
    assert errors == pytest.approx(expected, rel=1e-4)
    assert upstream_errors(summary.model, ShardDataset(matpes / "r2SCAN")) == pytest.approx(
        [errors["energy_mae"], errors["force_mae"], errors["stress_mae"], errors["magmom_mae"]], rel=1e-4
    )


def test_formation_energies_of_a_real_system(shared_data, tmp_path):
    source = {"kind": "mp_api", "path": str(shared_data / "emmet-tasks/Li-Fe-O.json.gz"), "energy": "mp2020"}
    tree = {"output": str(tmp_path / "set"), "source": source, "split": {"test": 0.3}, "parallel": {"workers": 1}}
    prepare(PrepareConfig.model_validate(tree))
    config = {"model": "0.3.0", "output": "unused", "data": {"path": str(tmp_path / "set")}}
    found = judge_phases(load("0.3.0"), ShardDataset(tmp_path / "set"), EvaluateConfig.model_validate(config))
    assert found.num_systems == 4, "Li-O, Fe-O, Li-Fe and Li-Fe-O; GGA and GGA+U on one scale"
    assert found.left_out.keys() == {"elements"}
    assert found.formation_mae < 0.08, "published: some tens of meV/atom"
    assert found.decomposition_mae < 0.1


def upstream_errors(model_file, dataset):
    """Mean absolute errors on the test materials, by plain chgnet and numpy."""
    model = CHGNet.from_file(model_file)
    records = [dataset[int(i)] for i in dataset.select("test")]
    structures = [Structure(Lattice(r.lattice), r.atomic_numbers, r.frac_coords) for r in records]
    predictions = [model.predict_structure(structure) for structure in structures]
    pairs = {
        "energy": [
            (np.atleast_1d(p["e"]), [r.energy / r.num_atoms]) for p, r in zip(predictions, records, strict=True)
        ],
        "force": [(p["f"], r.forces) for p, r in zip(predictions, records, strict=True)],
        "stress": [(p["s"], r.stress) for p, r in zip(predictions, records, strict=True)],
        "magmom": [(p["m"], r.magmoms) for p, r in zip(predictions, records, strict=True)],
    }
    return [np.concatenate([np.abs(a - np.asarray(b)).ravel() for a, b in rows]).mean() for rows in pairs.values()]
