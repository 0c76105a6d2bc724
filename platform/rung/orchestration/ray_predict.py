"""Batch prediction on a Ray cluster: chunks as tasks; this process reads the input and stores what comes back."""

from functools import partial

import ray

from rung.config.inference import PredictConfig
from rung.inference.store import PredictSummary
from rung.orchestration.cluster import connected
from rung.orchestration.predict import predict
from rung.orchestration.ray_tasks import map_over_tasks


def predict_on_ray(config: PredictConfig) -> PredictSummary:
    """Predict with the tasks of a Ray cluster.

    Raises:
        ValueError: no cluster answers, or what `predict` raises.
        TaskLostError: the cluster lost a task too often.
    """
    with connected(config.parallel.address):
        resources = ray.cluster_resources()
        gpus = config.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
        at_a_time = config.parallel.workers or max(1, int(resources.get("GPU", 1) / gpus if gpus else resources["CPU"]))
        return predict(config, partial(map_over_tasks, at_a_time=at_a_time, gpus=gpus))
