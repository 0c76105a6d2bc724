"""Runs of a study as tasks of a Ray cluster: each is a whole run with one rank."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

import ray

from rung.config.tree import TrainConfig
from rung.orchestration.cluster import connected
from rung.orchestration.many_runs import Result, Work
from rung.orchestration.ray_tasks import result_of

_FEWER: Final = "Lower at_a_time if nodes run out of memory"


def map_runs(work: Work[Result], configs: Sequence[TrainConfig], at_a_time: int | None) -> Iterator[Result]:
    """Yield `work(config)` in order. A task whose node is lost starts again and resumes its run's checkpoint.

    Raises:
        ValueError: no cluster answers.
        TaskLostError: a task was lost for good. What `work` itself raises is raised here too.
    """
    launcher = configs[0].launcher
    with connected(launcher.address):
        gpus = launcher.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        task = _run.options(num_cpus=launcher.cpus_per_worker, num_gpus=gpus, max_retries=max(1, launcher.max_failures))
        waiting, under_way = deque(configs), deque[ray.ObjectRef[Any]]()
        try:
            while waiting or under_way:
                while waiting and (at_a_time is None or len(under_way) < at_a_time):
                    under_way.append(task.remote(work, waiting.popleft().model_dump(mode="json")))
                yield result_of(under_way.popleft(), _FEWER)
        finally:
            for reference in under_way:
                ray.cancel(reference)


@ray.remote
def _run(work: Work[Any], values: dict[str, Any]) -> Any:
    return work(TrainConfig.model_validate(values))
