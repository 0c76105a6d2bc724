"""Power laws of error against number of records."""

import numpy as np
import pytest

from rung.studies.power_law import PowerLaw


def test_an_exact_law_is_recovered():
    n = np.array([10, 100, 1000])
    law = PowerLaw.fit(n, 5.0 * n**-0.4)
    assert law is not None
    assert law.slope == pytest.approx(-0.4)
    assert law.r_squared == pytest.approx(1)
    assert law.records_for(5.0 * 250**-0.4) == pytest.approx(250)
    value, low, high = law.at([50.0])
    assert value == pytest.approx(low)
    assert value == pytest.approx(high)


def test_the_confidence_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    n = np.repeat([30, 100, 300, 1000], 3)
    held = 0
    for _ in range(400):
        law = PowerLaw.fit(n, 2.0 * n**-0.5 * 10 ** rng.normal(scale=0.05, size=len(n)))
        held += law.slope_low <= -0.5 <= law.slope_high
    assert 0.91 < held / 400 < 0.985


def test_a_law_that_does_not_fall_reaches_nothing():
    law = PowerLaw.fit([10, 100, 1000], [1.0, 1.1, 1.2])
    assert law is not None
    assert law.records_for(0.5) is None
    assert PowerLaw.fit([10, 10, 10], [1.0, 1.0, 1.0]) is None
