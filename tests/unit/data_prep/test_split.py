"""The split is a function of the material and the salt alone."""

import numpy as np
import pytest

from data_prep.split import group_hash, split_of
from rung.config.preparation import SplitConfig
from rung.data.index import SPLITS

MATERIALS = [f"mp-{number}" for number in range(20_000)]


def parts(config: SplitConfig) -> np.ndarray:
    return np.array([split_of(material.encode(), config) for material in MATERIALS])


def test_shares_are_those_asked_for():
    shares = np.bincount(parts(SplitConfig(validation=0.1, test=0.2)), minlength=3) / len(MATERIALS)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)


def test_pinned_values():
    """Prepared sets of different dates must agree: these may never change."""
    assert group_hash(b"mp-149", "rung") == pytest.approx(0.5212635361704361, abs=1e-15)
    assert [SPLITS[split_of(material.encode(), SplitConfig())] for material in ("mp-149", "mp-13", "mp-27230")] == [
        "train",
        "test",
        "test",
    ]


def test_larger_shares_keep_the_materials_of_smaller_ones():
    small, large = parts(SplitConfig(validation=0.05, test=0.05)), parts(SplitConfig(validation=0.2, test=0.1))
    for name in ("validation", "test"):
        part = SPLITS.index(name)
        assert np.all(large[small == part] == part)


def test_salt_draws_anew():
    assert np.mean(parts(SplitConfig(salt="a")) == parts(SplitConfig(salt="b"))) < 0.8


def test_no_share_no_record():
    assert set(parts(SplitConfig(validation=0, test=0)).tolist()) == {SPLITS.index("train")}
