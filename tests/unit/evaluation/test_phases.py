"""Formation and decomposition energies against a hull by hand."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from rung.config.tree import EvaluateConfig
from rung.data.dataset import ShardDataset
from rung.evaluation import phases
from tests.unit.data.samples import record_of, write_dataset

PHASES = {
    "lithium": (["Li", "Li"], -2.0),
    "oxygen": (["O", "O"], -5.0),
    "Li2O": (["Li", "Li", "O"], -5.0),  # 2.0 below its elements, on the hull
    "LiO": (["Li", "O"], -4.9),  # 1.4 below its elements; the hull from Li2O to oxygen is 1.5 below them
    "LiF": (["Li", "F"], -6.0),  # no fluorine to compare with
}
"""Elements and energy, eV/atom."""


def record(name, symbols, energy, frame="0", functional="GGA"):
    places = np.linspace(0, 0.8, len(symbols))[:, None] * np.ones(3)
    cell = Structure(Lattice.cubic(5.0), symbols, places)
    labels = {"energy": energy * len(symbols), "functional": functional}
    return record_of(cell, material_id=name, frame_id=frame, **labels)


def judge(folder, records, predicted, monkeypatch, **keys):
    """Judge all records with a model that predicts these energies, eV/atom, by material."""
    dataset = ShardDataset(write_dataset(folder / "set", records, splits=1))

    def predictions(model, dataset, ids, data, batch):
        return np.array([predicted[dataset.record_names([i])[0].split("/")[0]] for i in ids])

    monkeypatch.setattr(phases, "predict_energies", predictions)
    tree = {"model": "0.3.0", "output": "x", "split": "train", "data": {"path": str(dataset.path)}}
    return phases.judge_phases(None, dataset, EvaluateConfig.model_validate(tree | keys))


LABELS = {name: energy for name, (_, energy) in PHASES.items()}


def test_energies_by_hand(tmp_path, monkeypatch):
    records = [record(name, *phase) for name, phase in PHASES.items()]
    records.append(record("Li2O", ["Li", "Li", "O"], -4.0, frame="a higher one"))
    found = judge(tmp_path, records, LABELS | {"LiO": -5.2}, monkeypatch)
    by_formula = {phase.formula: phase for phase in found.phases}
    assert by_formula["Li2O"].formation == pytest.approx((-2.0, -2.0))
    assert by_formula["Li2O2"].formation == pytest.approx((-1.4, -1.7))
    assert by_formula["Li2O2"].decomposition == pytest.approx((0.1, -0.2))
    assert by_formula["Li2O"].decomposition[0] == pytest.approx(-2.0 + 1.4 * 2 / 3)
    assert found.formation_mae == pytest.approx(0.15)
    assert found.stable == {"labels": 1, "model": 2, "both": 1}
    assert by_formula["Li2O2"].stable == (False, True)
    assert found.num_systems == 1
    assert found.left_out == {"elements": 2, "an element without a record of its own": 1}


def test_errors_of_the_references_cancel(tmp_path, monkeypatch):
    records = [record(name, *phase) for name, phase in PHASES.items() if name != "LiF"]
    shift = {"Li": 7.0, "O": -3.0}
    predicted = {
        name: energy + np.mean([shift[s] for s in PHASES[name][0]]) for name, energy in LABELS.items() if name != "LiF"
    }
    found = judge(tmp_path, records, predicted, monkeypatch)
    assert found.formation_mae == pytest.approx(0, abs=1e-9)
    assert found.decomposition_mae == pytest.approx(0, abs=1e-6)


def test_energies_of_two_functionals_are_not_mixed(tmp_path, monkeypatch):
    records = [record(name, *phase, functional="GGA+U" if name == "LiO" else "GGA") for name, phase in PHASES.items()]
    found = judge(tmp_path, records, LABELS, monkeypatch)
    assert [phase.formula for phase in found.phases] == ["Li2O"]
    assert found.left_out["an element without a record of its own"] == 2


def test_the_number_of_systems_is_limited(tmp_path, monkeypatch):
    records = [record(name, *phase) for name, phase in PHASES.items() if name != "LiF"]
    found = judge(tmp_path, records, LABELS, monkeypatch, phase_diagrams=1)
    assert len(found.phases) == 2
    tree = {"F": (["F", "F"], -3.0), "LiF": PHASES["LiF"]}
    more = records + [record(name, *phase) for name, phase in tree.items()]
    found = judge(tmp_path / "more", more, LABELS | {"F": -3.0}, monkeypatch, phase_diagrams=1)
    assert found.num_systems == 1
    assert found.left_out["beyond phase_diagrams"] in (1, 2)


def test_a_polymorph_is_no_phase_of_the_hull(tmp_path, monkeypatch):
    records = [record(name, *phase) for name, phase in PHASES.items() if name != "LiF"]
    records.append(record("polymorph", ["Li", "Li", "O"], -4.8))
    found = judge(tmp_path, records, LABELS | {"polymorph": -4.8}, monkeypatch)
    assert found.stable == {"labels": 1, "model": 1, "both": 1}
