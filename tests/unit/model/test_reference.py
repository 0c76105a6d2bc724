"""The four ways of using a fit of elemental energies."""

import logging

import numpy as np
import pytest
import torch

from rung.data.reference import bundled_reference, fit_reference
from rung.model.chgnet import evaluate
from rung.model.reference import prepare_reference, reference_of, set_reference
from rung.model.weights import load
from tests.unit.compositions import HYDROGEN, IRON, LITHIUM, OXYGEN, random_set


def test_reference_shifts_the_energy(small, cells, to_batch):
    batch = to_batch([cells["manganese oxide"]])
    before = evaluate(small, batch).energy
    energies = reference_of(small)
    energies[[24, 7]] += 1.0, 3.0
    set_reference(small, energies)
    assert evaluate(small, batch).energy.item() == pytest.approx(before.item() + 2.0, abs=1e-5)


@pytest.mark.parametrize("bad", [np.zeros(93), np.full(94, np.nan)])
def test_a_reference_that_is_none_is_refused(small, bad):
    with pytest.raises(ValueError, match="94 finite energies"):
        set_reference(small, bad)


@pytest.mark.parametrize(("mode", "trains"), [("trainable", True), ("frozen", False)])
def test_pretrained_reference_is_kept(mode, trains):
    model = load("0.3.0")
    before = reference_of(model)
    assert prepare_reference(model, mode, None) == ()
    assert np.array_equal(reference_of(model), before)
    assert model.composition_model.fc.weight.requires_grad is trains


@pytest.mark.parametrize(("mode", "hydrogen"), [("refit", -3.4431), ("scratch", 0.0)])
def test_fit_replaces_the_reference(caplog, mode, hydrogen):
    model = load("0.3.0")
    counts, energies, _ = random_set()
    fit = fit_reference(counts, energies)
    with caplog.at_level(logging.INFO, logger="rung.model.reference"):
        unseen = prepare_reference(model, mode, fit)
    found = reference_of(model)
    assert found[[LITHIUM, OXYGEN, IRON]] == pytest.approx(fit.energies[[LITHIUM, OXYGEN, IRON]], rel=1e-6)
    assert found[HYDROGEN] == pytest.approx(hydrogen, abs=1e-4)
    assert "H" in unseen
    assert "91 elements" in caplog.text
    assert not model.composition_model.fc.weight.requires_grad


@pytest.mark.parametrize("table", ["MPtrj", "MP-r2SCAN"])
def test_unseen_elements_can_take_a_bundled_table(table):
    model = load("0.3.0")
    counts, energies, _ = random_set()
    fit = fit_reference(counts, energies)
    bundled = bundled_reference(table)
    prepare_reference(model, "refit", fit, bundled)
    found = reference_of(model)
    seen = fit.records_with > 0
    assert found[~seen] == pytest.approx(bundled[~seen], rel=1e-6)
    assert found[seen] == pytest.approx(fit.energies[seen], rel=1e-6)
    assert bundled == pytest.approx(reference_of(load({"MPtrj": "0.3.0", "MP-r2SCAN": "r2scan"}[table])), abs=1e-4)


def test_refit_without_a_fit_is_refused(small):
    with pytest.raises(ValueError, match="no fit was given"):
        prepare_reference(small, "refit", None)


def test_trainable_reference_learns(small, cells, to_batch):
    prepare_reference(small, "trainable", None)
    evaluate(small, to_batch([cells["iron"]]), create_graph=True).energy.sum().backward()
    expected = torch.zeros(1, 94)
    expected[0, IRON] = 1.0
    assert torch.allclose(small.composition_model.fc.weight.grad, expected)
