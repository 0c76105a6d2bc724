"""The loader: the same batches in the same order with and without worker processes."""

import gc
import os
import time
from dataclasses import fields

import numpy as np
import pytest
import torch

from rung.config.sections import BatchConfig, DataConfig
from rung.data import loader
from rung.data.codec import ShardError, encode
from rung.data.dataset import ShardDataset
from rung.data.loader import BatchLoader
from rung.data.sampler import StepSampler
from tests.unit.data.samples import random_record, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    records = [random_record(seed, max_atoms=9) for seed in range(30)]
    return ShardDataset(write_dataset(tmp_path_factory.mktemp("loader") / "set", records))


def plans(dataset, structures=4, max_bonds=150, rank=0, world_size=1):
    batch = BatchConfig(structures=structures, max_bonds=max_bonds)
    return list(StepSampler(dataset.index, np.arange(len(dataset)), batch, 0, rank, world_size).plans(0))


def config(workers, prefetch=2):
    return DataConfig(path="unused", workers=workers, prefetch=prefetch)


def assert_same(batch, other):
    for field in fields(batch):
        expected, found = getattr(batch, field.name), getattr(other, field.name)
        if isinstance(expected, torch.Tensor):
            assert expected.dtype == found.dtype
            assert torch.equal(expected, found), field.name
        else:
            assert expected == found, field.name


def test_batches_hold_what_was_planned(dataset):
    loaded = list(BatchLoader(dataset, plans(dataset), config(0)))
    assert len(loaded) == 8
    assert any(len(batches) > 1 for _, batches in loaded)
    for plan, batches in loaded:
        assert [batch.record_ids.tolist() for batch in batches] == [ids.tolist() for ids in plan.micro_batches]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(dataset, workers):
    expected = list(BatchLoader(dataset, plans(dataset), config(0)))
    for _ in range(2):  # the second time from the pool that is there
        found = list(BatchLoader(dataset, plans(dataset), config(workers)))
        assert [plan.step for plan, _ in found] == list(range(8))
        for (_, batches), (_, others) in zip(expected, found, strict=True):
            for batch, other in zip(batches, others, strict=True):
                assert_same(batch, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_pinned_for_a_gpu(dataset, workers):
    for _, batches in BatchLoader(dataset, plans(dataset), config(workers)):
        for batch in batches:
            tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
            assert all(tensor.is_pinned() for tensor in tensors if tensor.numel())
            assert_same(batch, batch.to("cuda", non_blocking=True).to("cpu"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_rank_without_work_still_steps(dataset, workers):
    idle = plans(dataset, structures=1, rank=1, world_size=2)
    loaded = list(BatchLoader(dataset, idle, config(workers)))
    assert len(loaded) == 30
    assert all(batches == [] for _, batches in loaded)


def test_plans_are_drawn_only_as_far_ahead_as_configured(dataset):
    drawn = []

    def watched():
        for plan in plans(dataset):
            drawn.append(plan.step)
            yield plan

    batches = iter(BatchLoader(dataset, watched(), config(1, prefetch=3)))
    next(batches)
    assert drawn == [0, 1, 2]
    batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_stops_the_run_and_is_named(tmp_path, workers):
    folder = write_dataset(tmp_path / "set", [random_record(seed, max_atoms=4) for seed in range(6)], per_shard=3)
    damaged = ShardDataset(folder)
    path = folder / "shard-00001.lmdb"
    stored = encode(damaged[4])
    path.write_bytes(path.read_bytes().replace(stored[40:60], bytes(20)))
    with pytest.raises(ShardError, match=r"record 4 \(number 1 of .*shard-00001.lmdb"):
        list(BatchLoader(damaged, plans(damaged), config(workers)))


def test_a_dead_worker_is_an_error_that_says_what_to_do(dataset):
    batches = iter(BatchLoader(dataset, plans(dataset) * 50, config(1, prefetch=1)))
    next(batches)
    _, pool = loader._pools[dataset]
    for process in pool._processes.values():
        process.kill()
    with pytest.raises(RuntimeError, match=r"worker died.*data.workers"):
        list(batches)
    assert len(list(BatchLoader(dataset, plans(dataset), config(1)))) == 8


def test_workers_end_with_their_data_set(tmp_path):
    short_lived = ShardDataset(write_dataset(tmp_path / "set", [random_record(seed) for seed in range(3)]))
    assert len(list(BatchLoader(short_lived, plans(short_lived), config(1)))) == 1
    _, pool = loader._pools[short_lived]
    pids = list(pool._processes)
    del short_lived, pool
    gc.collect()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
