"""Work as tasks of a Ray cluster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from data_prep.output import UnfinishedError

_Chunk = TypeVar("_Chunk")
_Result = TypeVar("_Result")

_CHUNKS_PER_TASK: Final = 2  # one under way and one waiting: what is in flight stays bounded, however long the input
_LESS_WORK: Final = "Lower parallel.workers if nodes run out of memory"


class TaskLostError(UnfinishedError):
    """A task that Ray could not bring to its end, on whatever node."""


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
                yield result_of(under_way.popleft(), _LESS_WORK)
        while under_way:
            yield result_of(under_way.popleft(), _LESS_WORK)
    finally:
        for task in under_way:
            ray.cancel(task)


@ray.remote(num_cpus=1, max_retries=3)
def _run(work: Callable[[Any], Any], chunk: Any) -> Any:
    return work(chunk)


def result_of(task: "ray.ObjectRef[Any]", advice: str) -> Any:
    """Wait for a task; what its work raises is raised here.

    Args:
        task: that was submitted.
        advice: what to change where the cluster cannot do it.

    Raises:
        TaskLostError: the cluster lost it too often.
    """
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TaskLostError(
            f"Ray lost a task for good: {lines[0]}. {advice}; the same command goes on behind what is finished"
        ) from error
