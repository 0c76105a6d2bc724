"""The elemental reference inside a model."""

import numpy as np
import pytest
import torch
from chgnet.model import CHGNet

from rung.data.reference import bundled_reference
from rung.model.chgnet import evaluate
from rung.model.reference import reference_of, set_reference, train_reference
from rung.model.weights import load
from tests.unit.compositions import IRON


def test_reference_shifts_the_energy(small, cells, to_batch):
    batch = to_batch([cells["manganese oxide"]])
    before = evaluate(small, batch).energy
    energies = reference_of(small)
    energies[[24, 7]] += 1.0, 3.0
    set_reference(small, energies)
    assert evaluate(small, batch).energy.item() == pytest.approx(before.item() + 2.0, abs=1e-5)


@pytest.mark.parametrize("bad", [np.zeros(93), np.full(94, np.nan)])
def test_a_reference_that_is_none_is_refused(small, bad):
    with pytest.raises(ValueError, match=f"94 finite energies; found shape .{len(bad)}"):
        set_reference(small, bad)


@pytest.mark.parametrize("trained", [True, False])
def test_training_it_or_not_keeps_its_energies(trained):
    model = load("0.3.0")
    before = reference_of(model)
    train_reference(model, trained)
    assert np.array_equal(reference_of(model), before)
    assert model.composition_model.fc.weight.requires_grad is trained


def test_what_is_read_is_a_copy(small):
    before = reference_of(small)
    before[0] += 1
    assert reference_of(small)[0] == before[0] - 1


def test_a_table_of_the_chgnet_package_fits_in_as_it_is(small):
    table = bundled_reference("MP-r2SCAN")  # read-only, and float64 where the model is float32
    set_reference(small, table)
    assert reference_of(small).tolist() == table.astype(np.float32).tolist()


@pytest.mark.parametrize("table", ["MPtrj", "MP-r2SCAN"])
def test_the_bundled_models_hold_their_table(table):
    model = load({"MPtrj": "0.3.0", "MP-r2SCAN": "r2scan"}[table])
    assert bundled_reference(table) == pytest.approx(reference_of(model), abs=1e-4)


def test_a_model_without_a_reference_is_named():
    bare = CHGNet(composition_model=None)
    with pytest.raises(ValueError, match=r"^this CHGNet has no composition_model, so it has no reference energies to"):
        reference_of(bare)


def test_trainable_reference_learns(small, cells, to_batch):
    train_reference(small, trained=True)
    evaluate(small, to_batch([cells["iron"]]), create_graph=True).energy.sum().backward()
    expected = torch.zeros(1, 94)
    expected[0, IRON] = 1.0
    assert torch.allclose(small.composition_model.fc.weight.grad, expected)
