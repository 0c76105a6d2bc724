"""Fixtures for every test."""

import os
from pathlib import Path

import pytest

# Threads that wait for each other by spinning make the small arrays of tests several times slower on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real first-principles data: RUNG_TEST_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("RUNG_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RUNG_TEST_DATA to run this test")
    return folder
