"""Preparing data on a Ray cluster: the same work on the same chunks, as tasks; one process stores what comes back."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from data_prep.convert import prepare
from data_prep.output import UnfinishedError
from data_prep.summary import PrepareSummary
from rung.config.tree import PrepareConfig
from rung.orchestration.cluster import connected

_Chunk = TypeVar("_Chunk")
_Result = TypeVar("_Result")

_CHUNKS_PER_TASK: Final = 2  # one under way and one waiting: what is in flight stays bounded, however long the input


class TaskLostError(UnfinishedError):
    """A task that Ray could not bring to its end, on whatever node."""


def prepare_on_ray(config: PrepareConfig) -> PrepareSummary:
    """Prepare a data set with the tasks of a Ray cluster. Shards are written by this process, to its own disk.

    Raises:
        ValueError: no cluster answers, or what `prepare` raises.
        TaskLostError: the cluster lost a task too often.
    """
    with connected(config.parallel.address):
        at_a_time = config.parallel.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        return prepare(config, partial(map_over_tasks, at_a_time=at_a_time))


def map_over_tasks(
    work: Callable[[_Chunk], _Result], chunks: Iterable[_Chunk], at_a_time: int, gpus: float = 0.0
) -> Iterator[_Result]:
    """Yield `work(chunk)` in the order of the chunks, which are read no faster than they are worked on.

    A task whose worker or node is lost is done again elsewhere; what the work itself raises is raised here.

    Args:
        work: picklable.
        chunks: the input.
        at_a_time: tasks that compute at the same time.
        gpus: of one task.

    Raises:
        TaskLostError: a task was lost too often.
    """
    shared_work, run = ray.put(work), _run.options(num_gpus=gpus)
    under_way: deque[ray.ObjectRef[Any]] = deque()
    try:
        for chunk in chunks:
            under_way.append(run.remote(shared_work, chunk))
            if len(under_way) == at_a_time * _CHUNKS_PER_TASK:
                yield _result(under_way.popleft())
        while under_way:
            yield _result(under_way.popleft())
    finally:
        for task in under_way:
            ray.cancel(task)


@ray.remote(num_cpus=1, max_retries=3)
def _run(work: Callable[[Any], Any], chunk: Any) -> Any:
    return work(chunk)


def _result(task: "ray.ObjectRef[Any]") -> Any:
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TaskLostError(
            f"Ray lost a task for good: {lines[0]}. Lower parallel.workers if nodes run out of memory; the same command"
            " goes on behind what is finished"
        ) from error
