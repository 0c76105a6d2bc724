"""Which records of two data sets are the same structure."""

import dataclasses

import numpy as np
import pytest

from rung.data.dataset import ShardDataset
from rung.data.pairing import find_pairs, same_structure
from tests.unit.data.samples import random_record, write_dataset


@pytest.fixture
def record(small_dataset):
    dataset = ShardDataset(small_dataset)
    return dataset[int(dataset.index.num_atoms.argmax())]


def test_a_structure_with_its_atoms_in_another_order_is_the_same(record):
    order = np.random.default_rng(0).permutation(record.num_atoms)
    shuffled = dataclasses.replace(
        record,
        atomic_numbers=record.atomic_numbers[order],
        frac_coords=(record.frac_coords[order] + 3e-5) % 1.0,  # some atom may leave the cell on the other side
    )
    found = same_structure(record, shuffled, 1e-3)
    assert found is not None
    assert np.array_equal(order[found], np.arange(record.num_atoms))


@pytest.mark.parametrize("change", ["moved", "strained", "another element"])
def test_a_changed_structure_is_another(record, change):
    moved = record.frac_coords.copy()
    moved[0] += 0.05
    numbers = record.atomic_numbers.copy()
    numbers[0] += 1
    values = {
        "moved": {"frac_coords": moved},
        "strained": {"lattice": record.lattice * 1.01},
        "another element": {"atomic_numbers": numbers},
    }[change]
    assert same_structure(record, dataclasses.replace(record, **values), 1e-3) is None


def test_a_material_of_two_compositions_is_one_candidate(tmp_path):
    cells = [random_record(seed, material_id="mp-1") for seed in (1, 2)]
    assert cells[0].num_atoms != cells[1].num_atoms
    sets = [ShardDataset(write_dataset(tmp_path / name, cells, per_shard=2, splits=1)) for name in ("one", "other")]
    pairs = find_pairs(*sets, tolerance=1e-3)
    assert (len(pairs), pairs.num_candidates) == (2, 1)


def test_a_data_set_pairs_with_itself(small_dataset):
    dataset = ShardDataset(small_dataset)
    pairs = find_pairs(dataset, dataset, 1e-6)
    assert len(pairs) == len(dataset)
    assert np.array_equal(pairs.first, pairs.second)
