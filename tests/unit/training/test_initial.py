"""The model that a run starts from, under every mode of its elemental reference."""

import json

import numpy as np
import pytest
from chgnet.model import CHGNet
from pymatgen.core import Element

from rung.config.sections import NAMED_WEIGHTS, ModelConfig
from rung.data.dataset import ShardDataset
from rung.data.reference import bundled_reference, fit_reference
from rung.model.reference import reference_of
from rung.model.weights import BUNDLED
from rung.orchestration.paths import resolve_weights
from rung.training.initial import initial_model, load_model

PRETRAINED = {"init": "0.3.0"}


@pytest.fixture
def start(make_config):
    """Start a run, and return its model's reference beside the fit of all training records and the origin."""

    def make(**sections):
        sections["reference"] = {"start_limit": None} | sections.get("reference", {})
        config = make_config(**sections)
        dataset = ShardDataset(config.data.path)
        records = dataset.select("train")
        initial = initial_model(config, dataset, records)
        fit = fit_reference(*dataset.compositions_and_energies(records))
        return initial, reference_of(initial.model), fit

    return make


def trained(initial):
    return initial.model.composition_model.fc.weight.requires_grad


@pytest.mark.parametrize(("mode", "trains"), [("trainable", True), ("frozen", False)])
def test_the_pretrained_reference_can_be_kept(start, mode, trains):
    initial, reference, _ = start(model=PRETRAINED, reference={"mode": mode})
    assert reference == pytest.approx(bundled_reference("MPtrj"), abs=1e-4)
    assert trained(initial) is trains
    assert initial.reference["fit"] is None
    assert initial.reference["unseen"] == []


@pytest.mark.parametrize(("unseen", "table"), [("pretrained", "MPtrj"), ("MP-r2SCAN", "MP-r2SCAN")])
def test_a_fit_replaces_the_reference_of_the_elements_that_it_saw(start, unseen, table):
    initial, reference, fit = start(model=PRETRAINED, reference={"mode": "refit", "unseen": unseen})
    seen = fit.records_with > 0
    assert 0 < seen.sum() < 94
    assert reference[seen] == pytest.approx(fit.energies[seen], rel=1e-5)
    assert reference[~seen] == pytest.approx(bundled_reference(table)[~seen], abs=1e-4)
    assert initial.reference["unseen"] == list(fit.unseen)
    assert initial.reference["fit"]["num_records"] == fit.num_records
    assert not trained(initial)


@pytest.mark.parametrize("name", NAMED_WEIGHTS)
def test_a_folder_of_that_name_does_not_stand_in_for_named_weights(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    model = load_model(ModelConfig(init=resolve_weights(name)))
    assert isinstance(model, CHGNet)


def test_every_bundled_model_has_a_name():
    assert set(NAMED_WEIGHTS) == {"none", *BUNDLED}


def test_random_weights_start_from_the_fit_alone(start):
    initial, reference, fit = start(reference={"mode": "scratch"})
    assert reference == pytest.approx(fit.energies, rel=1e-5)
    assert reference[fit.records_with == 0].tolist() == [0] * len(fit.unseen)
    assert set(initial.reference["doctor"]["zero_step"]) == {"scratch"}


def test_elements_in_few_records_count_as_unseen(start):
    _, reference, fit = start(model=PRETRAINED, reference={"mode": "refit", "min_records": 5})
    rare = fit.records_with < 5
    assert rare.sum() > (fit.records_with == 0).sum()
    assert reference[rare] == pytest.approx(bundled_reference("MPtrj")[rare], abs=1e-4)


@pytest.fixture
def atoms(tmp_path):
    """Write the energies of isolated atoms, the same for every element, and return the section that names them."""

    def make(name, energy, elements):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"element_types": elements, "refs": [energy] * len(elements)}))
        return {"path": str(path)}

    return make


EVERYTHING = [Element.from_Z(number).symbol for number in range(1, 95)]


def test_isolated_atoms_shift_the_pretrained_reference(start, atoms):
    reference = {
        "mode": "isolated",
        "isolated": atoms("r2scan", -3.0, EVERYTHING),
        "isolated_pretrained": atoms("gga", -1.0, EVERYTHING),
    }
    _, found, _ = start(model=PRETRAINED, reference=reference)
    assert found == pytest.approx(bundled_reference("MPtrj") - 2.0, abs=1e-4)


def test_isolated_atoms_alone_are_the_reference_of_random_weights(start, atoms):
    _, found, _ = start(reference={"mode": "isolated", "isolated": atoms("r2scan", -3.0, EVERYTHING)})
    assert np.array_equal(found, np.full(94, -3.0))


def test_isolated_atoms_of_both_functionals_are_needed(start, atoms):
    reference = {"mode": "refit", "isolated": atoms("r2scan", -3.0, EVERYTHING)}
    with pytest.raises(ValueError, match=r"reference\.isolated_pretrained\.path is not set"):
        start(model=PRETRAINED, reference=reference)


def test_an_element_without_its_isolated_atom_is_named(start, atoms):
    with pytest.raises(ValueError, match=r"has no energy of atomic numbers \[.*\]: add them"):
        start(reference={"mode": "isolated", "isolated": atoms("r2scan", -3.0, ["Xe"])})


def test_a_set_without_a_labelled_training_record_is_refused(make_config):
    config = make_config()
    with pytest.raises(ValueError, match="has no training record with an energy"):
        initial_model(config, ShardDataset(config.data.path), np.zeros(0, dtype=np.int64))
