"""The shift between functionals, fitted to what a model leaves unexplained."""

import numpy as np
import pytest

from rung.data.reference import fit_reference
from rung.data.shift import covering_sample, fit_shift


def made_up(num_records, noise, seed=0):
    """Random ternaries of thirty elements with a common shift of -3 eV/atom; returns compositions, energies, truth."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((num_records, 94), dtype=np.int64)
    for row in counts:
        row[rng.choice(30, 3, replace=False)] = rng.integers(1, 5, 3)
    truth = -3 + np.random.default_rng(9).normal(scale=0.3, size=94)
    sizes = counts.sum(axis=1)
    return counts, counts @ truth + rng.normal(scale=noise, size=num_records) * sizes, truth


def test_many_records_recover_the_shift():
    counts, energies, truth = made_up(2000, 0.02)
    found = fit_shift(counts, energies, np.arange(2000))
    assert found.shift[:30] == pytest.approx(truth[:30], abs=0.02)
    assert found.left_out_rmse == pytest.approx(0.02, rel=0.1)


def test_elements_without_a_record_have_the_common_shift():
    counts, energies, _ = made_up(200, 0.02)
    found = fit_shift(counts, energies, np.arange(200))
    assert found.shift[60] == pytest.approx(found.mean)
    assert found.mean == pytest.approx(-3, abs=0.2)


def test_few_records_predict_others_better_than_a_plain_fit():
    counts, energies, _ = made_up(25, 0.1)
    others, their_energies, _ = made_up(500, 0.0, seed=5)
    sizes = others.sum(axis=1)

    def error(reference):
        return np.abs((their_energies - others @ reference) / sizes).mean()

    shrunk = error(fit_shift(counts, energies, np.arange(25)).shift)
    assert shrunk < 0.5 * error(fit_reference(counts, energies).energies)
    assert shrunk < 0.3


def test_the_closed_form_equals_leaving_materials_out():
    counts, energies, _ = made_up(40, 0.1)
    materials = np.repeat(np.arange(20), 2)
    found = fit_shift(counts, energies, materials, strength=0.7)
    squares = []
    for material in range(20):
        rest = materials != material
        # The same centre as the whole fit has would not do: each fit has its own common shift.
        part = fit_shift(counts[rest], energies[rest], materials[rest], strength=0.7)
        left_out = ~rest
        squares += np.square((energies - counts @ part.shift)[left_out] / counts.sum(axis=1)[left_out]).tolist()
    assert found.left_out_rmse == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-9)


def test_a_prior_that_holds_leaves_nothing_to_fit():
    counts, energies, truth = made_up(12, 0.0)
    found = fit_shift(counts, energies, np.arange(12), prior=truth)
    assert found.shift == pytest.approx(truth, abs=1e-9)


@pytest.mark.parametrize("energies", [np.zeros(0), np.array([np.nan])])
def test_nothing_to_fit_is_refused(energies):
    with pytest.raises(ValueError, match="finite energies"):
        fit_shift(np.ones((len(energies), 94), dtype=int), energies, np.arange(len(energies)))


def test_a_sample_holds_the_rare_elements():
    counts, _, _ = made_up(3000, 0.0)
    counts[2999, 80] = 1
    rows = covering_sample(counts, 400)
    assert len(rows) == len(set(rows.tolist())) == 400
    assert 2999 in rows
    assert len(covering_sample(counts[:10], 400)) == 10
