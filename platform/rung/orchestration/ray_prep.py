"""Preparing data on a Ray cluster: the same work on the same chunks, as tasks; one process stores what comes back."""

from functools import partial

import ray

from data_prep.convert import prepare
from data_prep.summary import PrepareSummary
from rung.config.tree import PrepareConfig
from rung.orchestration.cluster import connected
from rung.orchestration.ray_tasks import map_over_tasks


def prepare_on_ray(config: PrepareConfig) -> PrepareSummary:
    """Prepare a data set with the tasks of a Ray cluster. Shards are written by this process, to its own disk.

    Raises:
        ValueError: no cluster answers, or what `prepare` raises.
        TaskLostError: the cluster lost a task too often.
    """
    with connected(config.parallel.address):
        at_a_time = config.parallel.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        return prepare(config, partial(map_over_tasks, at_a_time=at_a_time))
