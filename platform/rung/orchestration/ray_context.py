"""The training loop's view of a Ray Train worker."""

from collections.abc import Mapping

import ray.train
import ray.train.torch
import torch


class RayContext:
    """One rank of a Ray Train worker group; Ray has opened the process group already."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        device = ray.train.torch.get_device()
        self.device: torch.device = device[0] if isinstance(device, list) else device

    def report(self, metrics: Mapping[str, float]) -> None:
        """Pass an epoch's metrics on to whoever started the run, such as a sweep. Every rank calls it equally often.

        No checkpoint goes along: the loop keeps its own on shared storage. Ray takes one report per health check and
        blocks the next one until then, so this is for epochs, not for steps.
        """
        ray.train.report(dict(metrics))

    def should_stop(self, step: int) -> bool:  # noqa: ARG002 (other launchers decide by step)
        """Ray ends its ranks by killing them; they resume from the last checkpoint."""
        return False
