"""Counts and running statistics."""

import numpy as np
import pytest

from data_prep.tally import RecordFacts, RunningStatistics
from rung.data.record import StructureRecord


def test_running_statistics_agree_with_numpy():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=100)
    statistics = RunningStatistics()
    for number, value in enumerate(values):
        statistics.add(float(value), f"r{number}")
    found = statistics.to_json()
    assert found["records"] == 100
    assert found["mean"] == pytest.approx(values.mean())
    assert found["std"] == pytest.approx(values.std())
    assert (found["min"], found["min_record"]) == (values.min(), f"r{values.argmin()}")
    assert (found["max"], found["max_record"]) == (values.max(), f"r{values.argmax()}")


def test_without_values_there_is_only_the_count():
    assert RunningStatistics().to_json() == {"records": 0}


def test_measures_of_a_record():
    record = StructureRecord(
        atomic_numbers=np.array([11, 17]),
        lattice=np.eye(3) * 4,
        frac_coords=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        energy=-8.0,
        forces=np.array([[3.0, 4.0, 0.0], [0, 0, 1]], dtype=np.float32),
        stress=np.diag([1.0, -7.0, 2.0]).astype(np.float32),
        source="test",
        material_id="mp-1",
        frame_id="f",
        functional="GGA",
    )
    assert RecordFacts.of(record, "energy").measures == (-4.0, 5.0, 7.0, None)
