"""The least-squares fit of elemental energies."""

import json

import numpy as np
import pytest
from chgnet.model.composition_model import AtomRef
from pymatgen.core import Lattice, Structure

from rung.data.reference import fit_common_elements, fit_reference, residuals
from tests.unit.compositions import IRON, LITHIUM, OXYGEN, compositions, random_set


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
    fractions = counts[:, [LITHIUM, OXYGEN, IRON]] / counts.sum(axis=1)[:, None]
    assert fit.condition == pytest.approx(np.linalg.cond(fractions))
    assert fit.energies[fit.records_with == 0].tolist() == [0.0] * 91


def test_what_a_reference_explains_is_measured():
    counts, energies, _ = random_set()
    fit = fit_reference(counts, energies)
    sizes = counts.sum(axis=1)
    before, after = energies / sizes, (energies - counts @ fit.energies) / sizes
    assert (fit.mae_before, fit.mae_after) == pytest.approx((np.abs(before).mean(), np.abs(after).mean()))
    assert (fit.rmse_before, fit.rmse_after) == pytest.approx(np.sqrt((np.mean(before**2), np.mean(after**2))))


def test_one_record_is_enough_to_see_an_element():
    fit = fit_reference(compositions({LITHIUM: 1}, {LITHIUM: 1, OXYGEN: 1}), np.array([-2.0, -7.0]))
    assert fit.energies[OXYGEN] == pytest.approx(-5.0)
    assert fit.records_with[OXYGEN] == 1


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
    assert np.array_equal(whole.records_with, blocks.records_with)
    weights = np.linspace(0.1, 3.0, len(energies))
    in_blocks = fit_reference(counts, energies, weights=weights).energies
    monkeypatch.undo()
    assert np.allclose(fit_reference(counts, energies, weights=weights).energies, in_blocks, atol=1e-12)


def test_json_names_the_elements():
    plain = fit_reference(compositions({LITHIUM: 2, OXYGEN: 1}, {OXYGEN: 2}), np.array([-9.0, -10.0])).to_json()
    assert plain["energies"] == pytest.approx({"Li": -2.0, "O": -5.0})
    assert plain["records_with"] == {"Li": 1, "O": 2}
    assert plain["num_records"] == 2
    assert len(plain["unseen"]) == 92
    assert {"Li", "O"}.isdisjoint(plain["unseen"])


def test_json_round_trip():
    counts, energies, _ = random_set()
    fit = fit_reference(counts, energies)
    again = type(fit).from_json(json.loads(json.dumps(fit.to_json())))
    assert np.array_equal(fit.energies, again.energies)
    assert np.array_equal(fit.records_with, again.records_with)
    assert again.records_with.dtype == fit.records_with.dtype == np.int64
    assert (fit.rank, fit.condition, fit.mae_after, fit.unseen) == (
        again.rank,
        again.condition,
        again.mae_after,
        again.unseen,
    )


@pytest.mark.parametrize(
    ("counts", "energies", "message"),
    [
        (np.zeros((0, 94), dtype=int), np.zeros(0), "^no record with an energy: a reference cannot be fitted$"),
        (np.ones((2, 93), dtype=int), np.zeros(2), r"found \(2, 93\) and \(2,\)"),
        (np.ones((2, 94), dtype=int), np.zeros(3), r"found \(2, 94\) and \(3,\)"),
        (np.ones(94, dtype=int), np.zeros(94), r"found \(94,\) and \(94,\)"),
        (np.ones((3, 94), dtype=int), np.array([0.0, np.nan, np.inf]), "^2 energies .*, the first is record 1: nan$"),
        (compositions({OXYGEN: 1}, {}), np.zeros(2), "^1 compositions have no atoms, the first is record 1$"),
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


def test_a_weight_of_two_counts_a_record_twice():
    counts, energies, _ = random_set()
    twice = np.arange(len(energies)) % 3 == 0
    weighted = fit_reference(counts, energies, weights=1.0 + twice)
    repeated = fit_reference(np.concatenate((counts, counts[twice])), np.concatenate((energies, energies[twice])))
    np.testing.assert_allclose(weighted.energies, repeated.energies, atol=1e-10)


def test_ridge_is_the_textbooks():
    counts, energies, _ = random_set()
    fractions = counts / counts.sum(axis=1)[:, None]
    normal = fractions.T @ fractions + 0.3 * np.eye(94)
    expected = np.linalg.solve(normal, fractions.T @ (energies / counts.sum(axis=1)))
    assert np.allclose(fit_reference(counts, energies, ridge=0.3).energies, expected, atol=1e-10)


COMMON = ({LITHIUM: 1, OXYGEN: 1}, {LITHIUM: 1, OXYGEN: 2}, {LITHIUM: 2, OXYGEN: 1, IRON: 1}, {IRON: 2})
TRUTH = np.zeros(94)
TRUTH[[LITHIUM, OXYGEN, IRON]] = -2.0, -5.0, -8.0


def test_rare_elements_keep_a_given_energy():
    counts, fallback = compositions(*COMMON), np.full(94, -7.0)
    fallback[IRON] = -8.0
    fit = fit_common_elements(counts, counts @ TRUTH, fallback, min_records=3)
    assert fit.energies[[LITHIUM, OXYGEN]] == pytest.approx([-2.0, -5.0])
    assert "Fe" in fit.unseen
    assert fit.num_records == 3, "iron alone explains nothing"
    assert fit.records_with[[LITHIUM, OXYGEN]].tolist() == [3, 3]


def test_a_wrong_energy_of_a_rare_element_stays_with_its_neighbours():
    counts = compositions({LITHIUM: 1, OXYGEN: 1, IRON: 2})
    fit = fit_common_elements(np.repeat(counts, 3, axis=0), np.full(3, -23.0), np.zeros(94), min_records=3)
    assert "Fe" not in fit.unseen
    mixed = np.concatenate((np.repeat(compositions({OXYGEN: 1}), 3, axis=0), compositions({OXYGEN: 1, IRON: 2})))
    fit = fit_common_elements(mixed, np.array([-5.0, -5.0, -5.0, -21.0]), np.full(94, -7.0), min_records=2)
    assert fit.energies[OXYGEN] == pytest.approx((3 * -5.0 + (-21.0 + 14.0)) / 4)


def test_without_rare_elements_it_is_the_plain_fit():
    counts, energies, _ = random_set()
    plain = fit_reference(counts, energies, ridge=0.5)
    fit = fit_common_elements(counts, energies, np.full(94, np.nan), min_records=2, ridge=0.5)
    assert np.array_equal(fit.energies, plain.energies)


def test_ridge_holds_where_elements_are_rare_too():
    counts = compositions(*COMMON)
    fallback = np.where(np.arange(94) == IRON, -8.0, np.nan)
    fit = fit_common_elements(counts, counts @ TRUTH, np.nan_to_num(fallback), min_records=3, ridge=0.5)
    common = np.where(np.arange(94) == IRON, 0, counts[:3])
    expected = fit_reference(common, (counts @ TRUTH)[:3] + np.array([0, 0, 8.0]), ridge=0.5)
    assert np.allclose(fit.energies, expected.energies)


def test_only_rare_elements_leave_nothing_to_fit():
    with pytest.raises(ValueError, match=r"^no element is in 5 training records, .* lower reference\.min_records, or"):
        fit_common_elements(compositions(*COMMON), np.zeros(4), np.zeros(94), min_records=5)


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_residuals_are_what_composition_leaves(monkeypatch, rows_at_once):
    monkeypatch.setattr("rung.data.reference._ROWS_AT_ONCE", rows_at_once)
    counts = compositions(*COMMON)
    before, after = residuals(counts, counts @ TRUTH + [0.0, 3.0, -4.0, 1.0], TRUTH)
    assert before.tolist() == pytest.approx([-3.5, -3.0, -5.25, -7.5])
    assert after.tolist() == pytest.approx([0.0, 1.0, -1.0, 0.5])
