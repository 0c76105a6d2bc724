"""Where the errors are: every group by hand."""

import numpy as np
import pytest

from rung.config.sections import BatchConfig, DataConfig, LossConfig
from rung.data.dataset import ShardDataset
from rung.evaluation import breakdown
from rung.evaluation.comparison import Compared, Comparison, compare, predict_energies
from rung.model.weights import load
from rung.training.context import LocalContext
from rung.training.validate import Validator


@pytest.fixture(scope="module")
def dataset(small_dataset):
    return ShardDataset(small_dataset)


@pytest.fixture(scope="module")
def compared(dataset):
    """The r2SCAN model on GGA labels, in many small batches."""
    records = dataset.select("train")
    batch = BatchConfig(max_angles=500)
    return compare(load("r2scan"), dataset, records, DataConfig(path=str(dataset.path)), batch)


def test_errors_are_those_that_training_measures(dataset, compared):
    data = DataConfig(path=str(dataset.path))
    expected = Validator(dataset, LocalContext("cpu"), data, BatchConfig()).errors(
        load("r2scan"), compared.record_ids, LossConfig()
    )
    expected.pop("loss")
    assert compared.errors() == pytest.approx(expected, rel=1e-4)


def test_rows_stand_beside_the_labels_of_their_record(dataset, compared):
    records = dataset.records.read(compared.record_ids)
    forces = compared.targets["force"]
    assert np.allclose(forces.label, np.concatenate([record.forces for record in records]))
    assert forces.atomic_numbers.tolist() == [z for record in records for z in record.atomic_numbers]
    assert forces.row.tolist() == [at for at, record in enumerate(records) for _ in range(record.num_atoms)]
    energies = predict_energies(
        load("r2scan"), dataset, compared.record_ids, DataConfig(path=str(dataset.path)), BatchConfig()
    )
    assert np.allclose(energies, compared.targets["energy"].prediction, atol=1e-5)


def test_elements_by_hand(dataset, compared):
    found = breakdown.by_element(compared, dataset)
    records = dataset.records.read(compared.record_ids)
    assert found.keys() == {symbol for symbol in found if found[symbol]["records"]}
    energies, forces = compared.targets["energy"], compared.targets["force"]
    from pymatgen.core import Element

    symbol = max(found, key=lambda each: found[each]["records"])
    number = Element(symbol).Z
    rows = [at for at, record in enumerate(records) if number in record.atomic_numbers]
    assert found[symbol]["records"] == len(rows)
    assert found[symbol]["energy_mae"] == pytest.approx(np.abs(energies.error[rows]).mean())
    of_element = forces.atomic_numbers == number
    assert found[symbol]["force_mae"] == pytest.approx(np.abs(forces.error[of_element]).mean())


def test_groups_hold_every_record_once(dataset, compared):
    sizes = breakdown.by_size(compared, dataset)
    assert sum(group["records"] for group in sizes.values()) == len(compared.record_ids)
    magnetism = breakdown.by_magnetism(compared)
    assert sum(group["records"] for group in magnetism.values()) == len(compared.record_ids)
    atoms = breakdown.by_force(compared)
    assert sum(group["atoms"] for group in atoms.values()) == len(compared.targets["force"])
    whole = sum(group["atoms"] * group["force_mae"] for group in atoms.values()) / len(compared.targets["force"])
    assert whole == pytest.approx(compared.errors()["force_mae"])


def one_target(name, label, prediction, row, numbers=()):
    arrays = (np.array(label, float), np.array(prediction, float))
    compared = Compared(*arrays, np.array(row), np.array(numbers, dtype=np.int64))
    return Comparison(np.arange(max(row) + 1), {name: compared})


def test_forces_are_compared_by_length_and_angle():
    found = breakdown.by_force(one_target("force", [[1.0, 0, 0], [0, 3.0, 0]], [[0, 1.0, 0], [0, 2.0, 0]], [0, 0]))
    assert found["1 to 2"] == {"atoms": 1, "force_mae": pytest.approx(2 / 3), "length_error": 0.0, "angle": 90.0}
    assert found["2 to 5"]["length_error"] == pytest.approx(-1.0)


def test_structures_without_moments_are_not_called_unmagnetic():
    comparison = one_target("magmom", [0.0, 3.0, 0.01], [0.1, 2.0, 0.0], [0, 0, 2])
    found = breakdown.by_magnetism(comparison)
    assert {name: group["records"] for name, group in found.items()} == {"magnetic": 1, "not magnetic": 1}
    assert breakdown.by_magnetism(Comparison(np.arange(2), {})) == {}


def test_the_worst_records_are_named_once_and_what_is_no_number_is_worst(dataset, compared):
    found = breakdown.worst(compared, dataset, "force", 5)
    assert len({case["record"] for case in found}) == 5
    errors = [abs(case["error"]) for case in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(np.abs(compared.targets["force"].error).max())
    broken = one_target("energy", [0.0, 1.0], [5.0, np.nan], [0, 1])
    assert breakdown.worst(broken, dataset, "energy", 1)[0]["label"] == 1.0
