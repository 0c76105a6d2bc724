"""Errors by element against a plain loop over records."""

import numpy as np
import pytest
import torch
from pymatgen.core import Element

from rung.config.sections import BatchConfig, DataConfig, ModelConfig
from rung.data.dataset import ShardDataset
from rung.inference.predictor import Predictor
from rung.model.weights import build
from rung.training.context import LocalContext
from rung.training.validate import Validator
from tests.unit.conftest import SMALL_MODEL


@pytest.mark.parametrize("max_bonds", [400_000, 50])
def test_errors_by_element_are_those_of_a_plain_loop(small_dataset, max_bonds):
    torch.manual_seed(0)
    model = build(ModelConfig.model_validate(SMALL_MODEL))
    dataset = ShardDataset(small_dataset)
    ids = dataset.select("test")
    validator = Validator(
        dataset, LocalContext("cpu"), DataConfig(path=str(small_dataset)), BatchConfig(max_bonds=max_bonds)
    )
    found = validator.element_sums(model, ids).errors()

    records = [dataset[record_id] for record_id in ids.tolist()]
    sums = {}
    for record, properties in zip(records, Predictor(model).predict(records), strict=True):
        for number in np.unique(record.atomic_numbers).tolist():
            atoms = record.atomic_numbers == number
            errors = sums.setdefault(Element.from_Z(number).symbol, {"energy": [], "force": [], "magmom": []})
            errors["energy"].append(abs(properties.energy_per_atom - record.energy / record.num_atoms))
            errors["force"] += np.abs(properties.forces - record.forces)[atoms].mean(axis=1).tolist()
            errors["magmom"] += np.abs(properties.magmoms - record.magmoms)[atoms].tolist()
    assert found.keys() == sums.keys()
    for element, errors in sums.items():
        for target, values in errors.items():
            assert found[element][f"{target}_mae"] == pytest.approx(np.mean(values), rel=1e-4), (element, target)


def test_no_records_give_no_errors(small_dataset):
    dataset = ShardDataset(small_dataset)
    validator = Validator(dataset, LocalContext("cpu"), DataConfig(path=str(small_dataset)), BatchConfig())
    model = build(ModelConfig.model_validate(SMALL_MODEL))
    assert validator.element_sums(model, np.array([], dtype=np.int64)).errors() == {}
