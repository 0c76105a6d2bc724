"""Spikes and stragglers, and what ranks tell each other."""

import pytest

from rung.training.resilience.incidents import SpikeDetector, Stragglers
from rung.training.resilience.notice import Heard, Notice, finite_slot, num_slots


def test_a_spike_is_measured_against_the_median_of_earlier_steps():
    detector = SpikeDetector(10.0)
    assert not any(detector.ratio(loss) for loss in [1.0, 50.0] * 4), "too few steps to know what is usual"
    for _ in range(30):
        assert detector.ratio(1.0) is None
    assert detector.ratio(9.0) is None
    assert detector.ratio(20.0) == pytest.approx(20.0)
    assert SpikeDetector(None).ratio(1e9) is None


def test_a_straggler_is_one_that_the_others_wait_for():
    stragglers = Stragglers(1.5)
    for _ in range(4):
        stragglers.add([1.0, 1.1, 2.0, 0.9])
    rank, seconds, others = stragglers.found()
    assert (rank, seconds, others) == (2, pytest.approx(2.0), pytest.approx(1.0))
    assert stragglers.found() is None, "each report starts anew"


@pytest.mark.parametrize("seconds", [[1.0], [1.0, 1.4], [0.001, 0.01]])
def test_no_straggler_where_there_is_one_rank_a_small_or_a_short_delay(seconds):
    stragglers = Stragglers(1.5)
    stragglers.add(seconds)
    assert stragglers.found() is None


def test_notices_add_up():
    notices = [Notice(seconds=1.0), Notice(stop=True, seconds=2.0), Notice(save=True, out_of_memory=True, seconds=3.0)]
    rows = [notice.encode(rank, 3) for rank, notice in enumerate(notices)]
    assert {len(row) for row in rows} == {num_slots(3)}
    total = [sum(column) for column in zip(*rows, strict=True)]
    total[finite_slot(1)] = 1.0
    heard = Heard.decode(total)
    assert heard == Heard(True, True, True, False, (1.0, 2.0, 3.0), (1,))
