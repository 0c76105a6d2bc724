"""The least-squares fit of elemental energies."""

import json

import numpy as np
import pytest
from chgnet.model.composition_model import AtomRef
from pymatgen.core import Lattice, Structure

from rung.data.reference import fit_reference
from tests.unit.compositions import LITHIUM, OXYGEN, compositions, random_set


def test_exact_energies_are_recovered():
    counts, energies, truth = random_set(noise=0.0)
    fit = fit_reference(counts, energies)
    assert np.allclose(fit.energies, truth, atol=1e-10)
    assert fit.rank == 3
    assert fit.num_records == 60
    assert fit.mae_after < 1e-10
    assert fit.mae_before == pytest.approx(np.abs(energies / counts.sum(axis=1)).mean())
    assert "Fe" not in fit.unseen
    assert "H" in fit.unseen
    assert len(fit.unseen) == 91
    assert fit.records_with[OXYGEN] == 60
    assert 1 < fit.condition < 20


def test_same_energies_as_upstreams_fit():
    counts, energies, _ = random_set()
    cells = [
        Structure(
            Lattice.cubic(5),
            np.repeat(np.arange(94) + 1, row).tolist(),
            np.random.default_rng(1).random((row.sum(), 3)),
        )
        for row in counts
    ]
    theirs = AtomRef(is_intensive=True)
    theirs.fit(cells, (energies / counts.sum(axis=1)).tolist())
    assert np.allclose(fit_reference(counts, energies).energies, theirs.fc.weight.detach().numpy()[0], atol=2e-4)


def test_elements_that_never_vary_apart_share_their_energy_in_the_shortest_way():
    fit = fit_reference(compositions({LITHIUM: 1, OXYGEN: 1}, {LITHIUM: 2, OXYGEN: 2}), np.array([-8.0, -16.0]))
    assert fit.rank == 1
    assert fit.energies[LITHIUM] == pytest.approx(-4.0)
    assert fit.energies[OXYGEN] == pytest.approx(-4.0)


def test_ridge_shrinks():
    counts, energies, _ = random_set()
    plain, ridged = fit_reference(counts, energies), fit_reference(counts, energies, ridge=10.0)
    assert np.linalg.norm(ridged.energies) < np.linalg.norm(plain.energies)
    assert ridged.rmse_after > plain.rmse_after


def test_blocks_give_the_same_fit(monkeypatch):
    counts, energies, _ = random_set()
    whole = fit_reference(counts, energies)
    monkeypatch.setattr("rung.data.reference._ROWS_AT_ONCE", 7)
    blocks = fit_reference(counts, energies)
    assert np.allclose(whole.energies, blocks.energies, atol=1e-12)
    assert whole.rmse_after == pytest.approx(blocks.rmse_after)


def test_json_round_trip():
    counts, energies, _ = random_set()
    fit = fit_reference(counts, energies)
    again = type(fit).from_json(json.loads(json.dumps(fit.to_json())))
    assert np.array_equal(fit.energies, again.energies)
    assert np.array_equal(fit.records_with, again.records_with)
    assert (fit.rank, fit.condition, fit.mae_after, fit.unseen) == (
        again.rank,
        again.condition,
        again.mae_after,
        again.unseen,
    )


@pytest.mark.parametrize(
    ("counts", "energies", "message"),
    [
        (np.zeros((0, 94), dtype=int), np.zeros(0), "no record with an energy"),
        (np.ones((2, 93), dtype=int), np.zeros(2), r"found \(2, 93\)"),
        (np.ones((2, 94), dtype=int), np.array([0.0, np.nan]), "record 1: nan"),
        (compositions({OXYGEN: 1}, {}), np.zeros(2), "no atoms, the first is record 1"),
    ],
)
def test_what_cannot_be_fitted_is_said(counts, energies, message):
    with pytest.raises(ValueError, match=message):
        fit_reference(counts, energies)


def test_weights_of_zero_leave_records_out():
    rng = np.random.default_rng(0)
    compositions = np.zeros((40, 94), dtype=np.int64)
    compositions[:, :5] = rng.integers(1, 6, (40, 5))
    energies = rng.normal(size=40)
    weights = (np.arange(40) < 25).astype(float)
    weighted, part = (
        fit_reference(compositions, energies, weights=weights),
        fit_reference(compositions[:25], energies[:25]),
    )
    np.testing.assert_allclose(weighted.energies, part.energies, atol=1e-10)
