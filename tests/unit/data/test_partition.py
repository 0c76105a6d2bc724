"""The partition, over every shape of run: no process group is needed, it is arithmetic."""

from itertools import pairwise

import numpy as np
import pytest

from rung.data.partition import (
    epoch_order,
    imbalance,
    num_steps,
    pack,
    predicted_cost,
    split_by_cost,
    step_bounds,
)

SIZES = (1, 2, 3, 7, 16, 41, 100)
BATCHES = (1, 2, 3, 8, 40, 1000)
WORLDS = (1, 2, 3, 8, 33)


@pytest.mark.parametrize("num_records", SIZES)
@pytest.mark.parametrize("batch", BATCHES)
def test_steps_take_every_record_once_in_even_batches(num_records, batch):
    steps = num_steps(num_records, batch)
    bounds = [step_bounds(num_records, steps, step) for step in range(steps)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == num_records
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    sizes = [end - start for start, end in bounds]
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
    assert max(sizes) <= batch
    assert steps == int(np.ceil(num_records / batch))


@pytest.mark.parametrize("num_records", SIZES)
def test_order_is_a_permutation_that_seed_and_epoch_decide(num_records):
    orders = {(seed, epoch): epoch_order(num_records, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    for key, order in orders.items():
        assert sorted(order.tolist()) == list(range(num_records))
        assert np.array_equal(order, epoch_order(num_records, *key))
    if num_records > 10:
        assert len({tuple(order.tolist()) for order in orders.values()}) == len(orders)


@pytest.mark.parametrize("num_items", [0, *SIZES])
@pytest.mark.parametrize("parts", WORLDS)
def test_split_gives_every_item_to_one_part(num_items, parts):
    costs = np.random.default_rng(num_items).lognormal(size=num_items)
    split = split_by_cost(costs, parts)
    assert len(split) == parts
    assert sorted(np.concatenate(split).tolist()) == list(range(num_items))
    assert all(np.array_equal(a, b) for a, b in zip(split, split_by_cost(costs, parts), strict=True))
    if num_items:
        loads = [costs[part].sum() for part in split]
        # Graham's bound for longest-first.
        assert max(loads) <= max(costs.max(), 4 / 3 * max(costs.sum() / parts, costs.max()))


def test_split_balances_better_than_counting():
    costs = np.random.default_rng(0).lognormal(sigma=1.0, size=320)
    assert imbalance(costs, split_by_cost(costs, 8)) < 1.01
    assert imbalance(costs, np.split(np.arange(320), 8)) > 1.1


def test_split_prefers_the_first_part_on_ties():
    assert [part.tolist() for part in split_by_cost(np.ones(5), 3)] == [[0, 3], [1, 4], [2]]


def test_equal_items_are_dealt_out_in_their_order_however_many_there_are():
    costs = np.repeat([2.0, 1.0, 3.0], 40)  # above 16 items numpy's usual sort swaps equal ones
    expected = np.concatenate([np.arange(start, start + 40) for start in (80, 0, 40)]).reshape(-1, 2).T
    assert [part.tolist() for part in split_by_cost(costs, 2)] == np.sort(expected).tolist()


@pytest.mark.parametrize("num_structures", [0, 1, 5, 60])
@pytest.mark.parametrize(
    ("max_bonds", "max_angles"), [(1, 1), (500, 10_000), (10_000, 300), (900, 900), (10**6, 10**6)]
)
def test_pack_keeps_the_budget_and_drops_nothing(num_structures, max_bonds, max_angles):
    rng = np.random.default_rng(num_structures)
    bonds, angles = rng.integers(1, 1000, num_structures), rng.integers(0, 1000, num_structures)
    batches = pack(bonds, angles, max_bonds, max_angles)
    assert sorted(item for batch in batches for item in batch.tolist()) == list(range(num_structures))
    for batch in batches:
        over = bonds[batch].sum() > max_bonds or angles[batch].sum() > max_angles
        assert not over or len(batch) == 1
    if max_bonds == 10**6:
        assert len(batches) == min(1, num_structures)


def test_pack_puts_the_largest_first():
    assert pack(np.array([10, 90, 40]), np.array([0, 0, 50]), 100, 100)[0].tolist() == [1]
    assert pack(np.array([10, 90, 400]), np.array([0, 0, 0]), 100, 100)[0].tolist() == [2]


def test_pack_measures_each_size_by_its_own_budget():
    assert [batch.tolist() for batch in pack(np.array([500, 10]), np.array([0, 80]), 1000, 100)] == [[1, 0]]
    assert [batch.tolist() for batch in pack(np.array([80, 10]), np.array([0, 500]), 100, 1000)] == [[0, 1]]


def test_pack_fills_a_budget_to_the_last_bond_and_angle():
    assert [batch.tolist() for batch in pack(np.array([50, 50, 1]), np.zeros(3, int), 100, 100)] == [[0, 1], [2]]
    assert [batch.tolist() for batch in pack(np.zeros(3, int), np.array([50, 50, 1]), 100, 100)] == [[0, 1], [2]]


def test_pack_takes_structures_without_a_bond():
    assert [batch.tolist() for batch in pack(np.array([0, 1]), np.array([0, 1]), 100, 100)] == [[1, 0]]


def test_pack_keeps_the_order_of_equal_structures():
    bonds = np.repeat([2, 1, 3], 40)
    (batch,) = pack(bonds, bonds, 1000, 1000)
    assert batch.tolist() == [*range(80, 120), *range(40), *range(40, 80)]


def test_pack_uses_few_batches():
    rng = np.random.default_rng(3)
    bonds, angles = rng.integers(1, 100, 500), rng.integers(1, 100, 500)
    fewest = max(bonds.sum(), angles.sum()) / 1000
    assert len(pack(bonds, angles, 1000, 1000)) <= 1.25 * fewest


def test_cost_grows_with_every_size():
    base = np.array([20, 800, 900])
    for changed in range(3):
        more = base.copy()
        more[changed] += 100
        assert predicted_cost(*more[:, None])[0] > predicted_cost(*base[:, None])[0]


def test_imbalance_of_even_parts_is_one():
    assert imbalance(np.ones(4), [np.array([0, 1]), np.array([2, 3])]) == 1
    assert imbalance(np.ones(4), [np.arange(4), np.array([], dtype=int)]) == 2
