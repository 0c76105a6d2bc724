"""Names of compositions."""

import warnings

import numpy as np
import pytest

from rung.data.formula import reduced_formula


def test_it_is_the_formula_that_people_write():
    assert reduced_formula(np.array([8, 3]), np.array([4, 8])) == "Li2O"


def test_noble_gases_are_no_reason_for_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reduced_formula([2, 18, 54], [1, 1, 2]) == "Xe2ArHe"


def test_what_is_no_element_is_refused():
    with pytest.raises(ValueError, match="300"):
        reduced_formula([300], [1])
