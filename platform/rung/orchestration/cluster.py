"""Connecting to a Ray cluster, or starting one on this machine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from rung.config.sections import LauncherConfig
from rung.orchestration.resources import Demand, NodeResources, demand_of, shortage

logger = logging.getLogger(__name__)

_NEW_CLUSTER = "local"

_OBJECT_STORE_BYTES = 512 * 2**20
"""Batches never pass through Ray; its default, a third of the memory, does not fit a container's /dev/shm."""


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process is connected to."""

    may_grow: bool
    """Whether nodes may join it; a cluster that was started on this machine for this process stays as it is."""

    def nodes(self) -> list[NodeResources]:
        """What each living node offers in all."""
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def demand(self, launcher: LauncherConfig) -> Demand:
        """What the launcher asks of this cluster.

        Raises:
            ValueError: the cluster can never give it; says the arithmetic and the keys to change.
        """
        nodes = self.nodes()
        demand = demand_of(launcher, nodes)
        lack = shortage(demand, nodes)
        if lack is None:
            return demand
        if not self.may_grow:
            raise ValueError(lack)
        logger.warning("waiting up to %g s (launcher.start_timeout) for more nodes: %s", launcher.start_timeout, lack)
        return demand


@contextmanager
def connected(launcher: LauncherConfig) -> Iterator[Cluster]:
    """Connect to the cluster of the config, of RAY_ADDRESS, or a new one on this machine; leave it afterwards.

    A connection that exists already is used and left open.

    Raises:
        ValueError: no cluster answers at the address.
    """
    if ray.is_initialized():
        yield Cluster(may_grow=True)
        return
    address = launcher.address or os.environ.get("RAY_ADDRESS") or _NEW_CLUSTER
    if address.startswith("ray://"):
        raise ValueError(
            f"the Ray address {address!r} is a Ray Client's, whose driver runs outside the cluster and cannot follow"
            " the run: use `ray job submit`, or give launcher.address as host:port on a node of the cluster"
        )
    try:
        if address == _NEW_CLUSTER:
            # without the dashboard Ray Train cannot free the resources of a driver that was killed
            ray.init(
                address=address,
                include_dashboard=True,
                object_store_memory=_OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, TimeoutError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address!r} ({error}): correct launcher.address or RAY_ADDRESS,"
            " or unset both to start one on this machine"
        ) from error
    try:
        yield Cluster(may_grow=address != _NEW_CLUSTER)
    finally:
        ray.shutdown()
