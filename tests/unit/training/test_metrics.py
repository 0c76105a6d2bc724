"""Errors from sums."""

import math

import pytest
import torch

from rung.training.metrics import ErrorSums, errors_from_sums

WEIGHTS = (1.0, 2.0, 0.5, 0.0)


def test_errors_are_sums_over_counts():
    sums = ErrorSums(torch.device("cpu"))
    sums.add(torch.tensor([[3.0, 2.0, 8.0, 2.0], [5.0, 9.0, 27.0, 3.0], [0.0] * 4, [1.0, 1.0, 1.0, 1.0]]))
    errors = errors_from_sums(sums.reduced(), WEIGHTS)
    assert errors["energy_mae"] == 1.0
    assert errors["energy_rmse"] == 2.0
    assert errors["force_mae"] == 3.0
    assert errors["force_rmse"] == 3.0
    assert errors["magmom_mae"] == errors["magmom_rmse"] == 1.0, "after a target without labels"
    assert errors["loss"] == pytest.approx(1.0 * 3 / 2 + 2.0 * 5 / 3)


def test_batches_add_up_even_where_one_dwarfs_the_other():
    sums = ErrorSums(torch.device("cpu"))
    sums.add(torch.full((4, 4), 2.0**30))
    sums.add(torch.ones(4, 4))
    sums.add(torch.ones(4, 4))
    assert sums.reduced().tolist() == [[2.0**30 + 2] * 4] * 4


def test_sums_stay_on_their_device():
    assert ErrorSums(torch.device("meta")).sums.device.type == "meta"


def test_sums_of_other_targets_are_refused():
    with pytest.raises(ValueError, match="zip"):
        errors_from_sums(torch.ones(3, 4), WEIGHTS)


def test_a_target_without_labels_has_no_entry_and_no_nan():
    errors = errors_from_sums(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0] * 4, [0.0] * 4, [0.0] * 4]), WEIGHTS)
    assert not any(name.startswith(("force", "stress", "magmom")) for name in errors)
    assert all(math.isfinite(value) for value in errors.values())


def test_no_labels_at_all_give_no_errors():
    assert errors_from_sums(torch.zeros(4, 4), WEIGHTS) == {}


def test_clear_starts_again():
    sums = ErrorSums(torch.device("cpu"))
    sums.add(torch.ones(4, 4))
    kept = sums.reduced()
    sums.clear()
    assert sums.reduced().sum() == 0
    assert kept.sum() == 16, "what was read before must not change"
