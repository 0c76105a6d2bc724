"""The training loop's view of a Ray Train worker."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import ray.train
import ray.train.torch
import torch
from ray.train.v2._internal.execution.context import get_train_context as get_internal_train_context

logger = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0  # s


class RayContext:
    """One rank of a Ray Train worker group; Ray has opened the process group already.

    Args:
        stop_request: file whose presence asks the run to stop.
    """

    ends_at_reports = False

    def __init__(self, stop_request: Path) -> None:
        self._stop_request = stop_request
        self._stop_requested = False
        self._looked_at = 0.0
        self._nodes_told: list[str] = []
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.first_on_node = context.get_local_rank() == 0
        device = ray.train.torch.get_device()
        self.device: torch.device = device[0] if isinstance(device, list) else device

    def report(self, metrics: Mapping[str, float]) -> None:
        """Pass an epoch's metrics on to whoever started the run, such as a sweep. Every rank calls it equally often.

        No checkpoint goes along: the loop keeps its own on shared storage. Ray takes one report per health check and
        blocks the next one until then, so this is for epochs, not for steps.
        """
        ray.train.report(dict(metrics))

    def should_stop(self, step: int) -> bool:  # noqa: ARG002 (other launchers decide by step)
        """Whether the process that started the run asks for it; rank 0 looks for its file once a second."""
        if self.rank == 0 and time.monotonic() - self._looked_at > _LOOK_EVERY:
            self._looked_at = time.monotonic()
            self._stop_requested = self._stop_request.exists()
        return self._stop_requested

    def should_save(self, step: int) -> bool:
        """Whether Ray has been told that a node of this run will be taken away; once for each such notice.

        The run goes on after the checkpoint: Ray restarts it without that node when it is gone.
        """
        # Not ray.train.get_preemption_info: it has all ranks meet in an actor, and they meet in every step anyway.
        notice = get_internal_train_context().preemption_context.preemption_info
        if notice is None or notice.preempted_node_ids == self._nodes_told:
            return False
        self._nodes_told = notice.preempted_node_ids
        logger.warning("a node of this run will be taken away: saving a checkpoint before step %d", step + 1)
        return True
