"""Batches in the order of their plans, decoded and collated ahead of the model by worker processes."""

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from rung.config.progress import followed
from rung.config.sections import DataConfig
from rung.data.batch import GraphBatch, collate
from rung.data.dataset import RecordReader, ShardDataset
from rung.data.processes import worker_pool
from rung.data.sampler import StepPlan

_PRELOADED: Final = ["torch", "rung.data.batch", "rung.data.dataset"]

_Arrays = dict[str, Any]
_RecordIds = tuple[NDArray[np.int64], ...]


class BatchLoader:
    """Yields each plan with this rank's batches, pinned where there is a GPU.

    Args:
        dataset: to read from.
        plans: the steps, in order.
        config: number of worker processes, 0 to read in this one, and how many steps each works ahead.

    Raises:
        DamagedShardError: while iterating, for a record that is missing or damaged.
        RuntimeError: while iterating, if a worker process died.
    """

    def __init__(self, dataset: ShardDataset, plans: Iterable[StepPlan], config: DataConfig) -> None:
        self._dataset = dataset
        self._plans = plans
        self._config = config

    def __iter__(self) -> Iterator[tuple[StepPlan, list[GraphBatch]]]:
        pinned = torch.cuda.is_available()
        for plan, batches in self._ahead() if self._config.workers else self._here():
            yield plan, [batch.pin_memory() for batch in batches] if pinned else batches

    def _here(self) -> Iterator[tuple[StepPlan, list[GraphBatch]]]:
        for plan in self._plans:
            yield plan, _load(self._dataset.records, plan.micro_batches)

    def _ahead(self) -> Iterator[tuple[StepPlan, list[GraphBatch]]]:
        """Keep every worker busy, and hand out the steps in the order of the plans."""
        pool = _pool(self._dataset, self._config.workers)
        plans = iter(self._plans)
        under_way: deque[tuple[StepPlan, Future[list[_Arrays]]]] = deque()
        try:
            while True:
                while len(under_way) < self._config.workers * self._config.prefetch:
                    if (plan := next(plans, None)) is None:
                        break
                    under_way.append((plan, pool.submit(_load_arrays, plan.micro_batches)))
                if not under_way:
                    return
                plan, arrays = under_way.popleft()
                yield plan, [_from_arrays(each) for each in arrays.result()]
        except BrokenProcessPool as error:
            _pools.pop(self._dataset, None)
            raise RuntimeError(
                "a data worker died, most likely for want of memory: lower data.workers, data.prefetch or"
                " batch.max_angles, or set data.workers to 0 to read in the training process"
            ) from error
        finally:
            for _, arrays in under_way:
                arrays.cancel()


def evaluation_batches(
    dataset: ShardDataset, plans: Iterable[StepPlan], config: DataConfig, what: str
) -> Iterator[tuple[StepPlan, list[GraphBatch]]]:
    """The batches of plans that are evaluated one after the other, followed by a bar that says what is done."""
    plans = list(plans)
    with followed(what, sum(map(_num_structures, plans)), "structure") as advance:
        for plan, batches in BatchLoader(dataset, plans, config):
            yield plan, batches
            advance(_num_structures(plan))


def _num_structures(plan: StepPlan) -> int:
    return sum(map(len, plan.micro_batches))


def _load(reader: RecordReader, micro_batches: _RecordIds) -> list[GraphBatch]:
    """Read and collate the batches of one step; all records are read together, so each shard is visited once."""
    if not micro_batches:
        return []
    records = reader.read(np.concatenate(micro_batches))
    ends = np.cumsum([len(ids) for ids in micro_batches]).tolist()
    return [collate(records[end - len(ids) : end]) for end, ids in zip(ends, micro_batches, strict=True)]


# Pools outlive a loader, so that an epoch does not begin with starting processes; they end with their data set.
_pools: weakref.WeakKeyDictionary[ShardDataset, tuple[int, ProcessPoolExecutor]] = weakref.WeakKeyDictionary()


def _pool(dataset: ShardDataset, workers: int) -> ProcessPoolExecutor:
    """Worker processes that read this data set."""
    size, pool = _pools.get(dataset, (0, None))
    if pool is None or size != workers:
        pool = worker_pool(workers, _PRELOADED, _start_worker, (dataset.records,))
        _pools[dataset] = (workers, pool)
    return pool


_worker_reader: RecordReader | None = None  # set once in each worker process


def _start_worker(reader: RecordReader) -> None:
    global _worker_reader  # noqa: PLW0603 - how a pool hands something to its processes
    _worker_reader = reader
    # The cores belong to the training process; a worker's tensors are too small to share out.
    torch.set_num_threads(1)


def _load_arrays(micro_batches: _RecordIds) -> list[_Arrays]:
    """Load a step in a worker. Arrays go back through a pipe: shared memory is often 64 MB in a container."""
    assert _worker_reader is not None  # noqa: S101 - the pool's initializer has run
    return [_to_arrays(batch) for batch in _load(_worker_reader, micro_batches)]


def _to_arrays(batch: GraphBatch) -> _Arrays:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _from_arrays(arrays: _Arrays) -> GraphBatch:
    values: dict[str, Any] = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in arrays.items()
    }
    return GraphBatch(**values)
