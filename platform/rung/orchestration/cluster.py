"""Connecting to a Ray cluster, or starting one on this machine."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from rung.config.progress import waiting
from rung.config.sections import LauncherConfig
from rung.orchestration.resources import OBJECT_STORE_BYTES, Demand, NodeResources, demand_of, shortage

logger = logging.getLogger(__name__)

_NEW_CLUSTER = "local"
_ANSWER_SECONDS = 10.0
_USUAL_START = 6.0  # seconds


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
def connected(address: str | None) -> Iterator[Cluster]:
    """Connect to the cluster at the address, of RAY_ADDRESS, or a new one on this machine; leave it afterwards.

    A connection that exists already is used and left open.

    Raises:
        ValueError: no cluster answers at the address.
    """
    if ray.is_initialized():
        yield Cluster(may_grow=True)
        return
    address = address or os.environ.get("RAY_ADDRESS") or _NEW_CLUSTER
    if address == _NEW_CLUSTER:
        logger.info("starting a Ray cluster on this machine")
        with waiting("starting Ray", _USUAL_START):
            context = ray.init(
                address=address,
                include_dashboard=True,  # without it Ray Train cannot free the resources of a driver that was killed
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
            )
    else:
        check_address(address)
        try:
            with waiting("connecting to Ray", _USUAL_START):
                context = ray.init(address=address, logging_level=logging.WARNING)
        except (ConnectionError, TimeoutError) as error:
            raise _no_answer(address, error) from error
    logger.info("Ray dashboard: %s", context.dashboard_url)
    try:
        yield Cluster(may_grow=address != _NEW_CLUSTER)
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster, or where nobody answers: Ray itself would knock for ever.

    Raises:
        ValueError: says what the address should be.
    """
    if address.startswith(("ray://", "http://", "https://")):
        raise ValueError(
            f"the Ray address {address!r} (launcher.address, parallel.address or RAY_ADDRESS) is meant for programs"
            " outside the cluster: submit this job with `ray job submit`, or give host:port of the cluster's head"
            " (6379 unless changed)"
        )
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # a word of Ray's own, such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise _no_answer(address, error) from error


def _no_answer(address: str, error: Exception) -> ValueError:
    return ValueError(
        f"no Ray cluster answers at {address!r} ({error}): correct launcher.address (parallel.address) or"
        " RAY_ADDRESS, or unset them to start one on this machine"
    )
