"""Plans over every shape of run: complete, equal in number, the same batch for any number of ranks."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from rung.config.sections import BatchConfig
from rung.data.fields import Labels
from rung.data.sampler import LabelCounts, StepSampler, evaluation_plans

WORLDS = (1, 2, 3, 8)


def make_index(num_records, seed=0):
    """Stand-in for the index of a data set: sizes and labels alone."""
    rng = np.random.default_rng(seed)
    atoms = rng.integers(1, 60, num_records).astype(np.int32)
    return SimpleNamespace(
        num_atoms=atoms,
        num_bonds=atoms * rng.integers(10, 40, num_records).astype(np.int32),
        num_angles=atoms * rng.integers(0, 60, num_records).astype(np.int32),
        labels=rng.integers(0, 16, num_records).astype(np.uint8),
    )


def plans_of_all_ranks(index, records, batch, seed, epoch, world_size, *, first=0):
    samplers = [StepSampler(index, records, batch, seed, rank, world_size) for rank in range(world_size)]
    return [list(sampler.plans(epoch, first)) for sampler in samplers]


def ids_of(plan):
    return [record for ids in plan.micro_batches for record in ids.tolist()]


@pytest.mark.parametrize("num_records", [1, 2, 7, 40, 101])
@pytest.mark.parametrize("structures", [1, 3, 8, 40])
@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 5), (9, 1)])
def test_every_record_once_and_equal_steps(num_records, structures, world_size, seed, epoch):
    index = make_index(num_records + 20)
    records = np.sort(np.random.default_rng(1).permutation(num_records + 20)[:num_records])
    batch = BatchConfig(structures=structures, max_bonds=1500, max_angles=2000)
    ranks = plans_of_all_ranks(index, records, batch, seed, epoch, world_size)
    assert {len(plans) for plans in ranks} == {-(-num_records // structures)}
    assert sorted(record for plans in ranks for plan in plans for record in ids_of(plan)) == records.tolist()
    for step, plans in enumerate(zip(*ranks, strict=True)):
        everything = np.array([record for plan in plans for record in ids_of(plan)])
        expected = LabelCounts.of(index.labels[everything], index.num_atoms[everything])
        for plan in plans:
            assert (plan.epoch, plan.step, plan.is_last) == (epoch, step, step == len(ranks[0]) - 1)
            assert plan.workload.num_structures == len(everything) <= structures
            assert plan.label_counts == expected
            for ids in plan.micro_batches:
                within = index.num_bonds[ids].sum() <= 1500 and index.num_angles[ids].sum() <= 2000
                assert within or len(ids) == 1


@pytest.mark.parametrize("structures", [1, 5, 32])
def test_a_step_is_the_same_for_any_number_of_ranks(structures):
    index, batch = make_index(90), BatchConfig(structures=structures)
    alone = [set(ids_of(plan)) for plan in plans_of_all_ranks(index, np.arange(90), batch, 3, 2, 1)[0]]
    for world_size in WORLDS[1:]:
        ranks = plans_of_all_ranks(index, np.arange(90), batch, 3, 2, world_size)
        together = [{record for plan in plans for record in ids_of(plan)} for plans in zip(*ranks, strict=True)]
        assert together == alone


def test_a_batch_smaller_than_the_world_leaves_ranks_idle_but_in_step():
    ranks = plans_of_all_ranks(make_index(6), np.arange(6), BatchConfig(structures=2), 0, 0, 8)
    for plans in zip(*ranks, strict=True):
        assert sorted(len(ids_of(plan)) for plan in plans) == [0] * 6 + [1] * 2


@pytest.mark.parametrize("first", [0, 1, 4, 5])
def test_starting_in_the_middle_gives_the_same_plans(first):
    index, batch = make_index(50), BatchConfig(structures=10)
    whole = plans_of_all_ranks(index, np.arange(50), batch, 0, 1, 2)
    rest = plans_of_all_ranks(index, np.arange(50), batch, 0, 1, 2, first=first)
    for expected, found in zip(whole, rest, strict=True):
        assert [(plan.step, ids_of(plan)) for plan in expected[first:]] == [(p.step, ids_of(p)) for p in found]


def test_epochs_and_seeds_differ():
    index, batch = make_index(50), BatchConfig(structures=10)
    orders = [
        ids_of(plans_of_all_ranks(index, np.arange(50), batch, *key, 1)[0][0]) for key in [(0, 0), (0, 1), (1, 0)]
    ]
    assert len({tuple(order) for order in orders}) == 3


def test_label_counts():
    labels = np.array([Labels.ENERGY, Labels.ENERGY | Labels.FORCES, Labels.STRESS, Labels.MAGMOMS, 15], dtype=np.uint8)
    counts = LabelCounts.of(labels, np.array([1, 10, 100, 1000, 10_000]))
    assert counts == LabelCounts(energy=3, force=3 * 10_010, stress=18, magmom=11_000)
    assert counts.in_target_order() == (3, 30_030, 18, 11_000)


def test_oversized_records_are_reported_once_and_kept(caplog):
    index, batch = make_index(30), BatchConfig(structures=30, max_bonds=1000)
    with caplog.at_level(logging.WARNING):
        ranks = plans_of_all_ranks(index, np.arange(30), batch, 0, 0, 2)
    assert len(caplog.records) == 1
    assert f"{np.count_nonzero(index.num_bonds > 1000)} of 30 records exceed" in caplog.text
    assert sorted(record for plans in ranks for record in ids_of(plans[0])) == list(range(30))


@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("num_records", [0, 1, 5, 77])
def test_evaluation_visits_every_record_once(world_size, num_records):
    index, batch = make_index(80), BatchConfig(max_bonds=2000, max_angles=2500)
    records = np.arange(80)[:num_records]
    ranks = [list(evaluation_plans(index, records, batch, rank, world_size)) for rank in range(world_size)]
    assert sorted(record for plans in ranks for plan in plans for record in ids_of(plan)) == records.tolist()
    for plans in ranks:
        assert [plan.is_last for plan in plans] == [False] * (len(plans) - 1) + [True] * bool(plans)
        for plan in plans:
            assert len(plan.micro_batches) == 1
            assert plan.workload.num_structures == len(plan.micro_batches[0])


@pytest.mark.parametrize("rank", [-1, 2])
def test_refuses_a_rank_outside_the_world(rank):
    with pytest.raises(ValueError, match="ranks are 0 to 1"):
        StepSampler(make_index(3), np.arange(3), BatchConfig(), 0, rank, 2)


def test_refuses_no_records():
    with pytest.raises(ValueError, match="no records"):
        StepSampler(make_index(3), np.arange(0), BatchConfig(), 0, 0, 1)
