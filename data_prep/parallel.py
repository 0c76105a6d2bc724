"""An ordered map over worker processes that holds a few chunks at a time, however long the input is."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Final, TypeVar

from data_prep.output import UnfinishedError
from rung.data.processes import worker_pool

_Chunk = TypeVar("_Chunk")
_Result = TypeVar("_Result")

_CHUNKS_PER_WORKER: Final = 3  # one under way, one waiting, one done: enough to keep every worker busy
_NOT_WORTH_A_POOL: Final = 4  # chunks; starting processes takes longer
_PRELOADED: Final = ("data_prep.encode", "pymatgen.core", "data_prep.sources.registry")


class WorkerLostError(UnfinishedError):
    """A worker process died."""


def map_over_processes(
    work: Callable[[_Chunk], _Result], chunks: Iterable[_Chunk], workers: int | None
) -> Iterator[_Result]:
    """Yield `work(chunk)` in the order of the chunks, which are read no faster than they are worked on.

    Args:
        work: picklable.
        chunks: the input.
        workers: processes; as many as there are CPUs if None.

    Raises:
        WorkerLostError: a process died.
    """
    workers = workers or len(os.sched_getaffinity(0))
    stream = iter(chunks)
    head = list(islice(stream, _NOT_WORTH_A_POOL))
    if workers == 1 or len(head) < _NOT_WORTH_A_POOL:
        yield from map(work, chain(head, stream))
        return
    pool = worker_pool(workers, _PRELOADED)
    under_way: deque[Future[_Result]] = deque()
    try:
        for chunk in chain(head, stream):
            under_way.append(pool.submit(work, chunk))
            if len(under_way) == workers * _CHUNKS_PER_WORKER:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerLostError(
            f"one of the {workers} worker processes died, most likely for want of memory: lower parallel.workers and"
            " run the same command again, which goes on behind what is finished"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
