"""Whether a cluster can hold the ranks that a launcher asks for. Pure arithmetic; a rank must fit on one node."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rung.config.sections import LauncherConfig

NodeResources = Mapping[str, float]
"""What one node offers in all, as Ray names it: CPU, GPU, ..."""

OBJECT_STORE_BYTES = 512 * 2**20
"""Batches never pass through Ray; its default, a third of the memory, does not fit a container's /dev/shm."""

_ROUNDING = 1e-6
"""Ray counts resources in steps of 1e-4; this keeps 10 x 0.1 CPU within 1 CPU."""


@dataclass(frozen=True)
class Demand:
    """What all ranks of a run need."""

    num_workers: int
    """The fewest ranks that the run starts with."""
    cpus: float
    """CPUs of one rank."""
    gpus: float
    """GPUs of one rank."""
    max_workers: int | None = None
    """The most ranks, where the run grows and shrinks with the cluster."""

    def __str__(self) -> str:
        return f"{_count(self.num_workers, 'rank')} x ({_count(self.cpus, 'CPU')}, {_count(self.gpus, 'GPU')})"

    @property
    def workers(self) -> int | tuple[int, int]:
        """Number of ranks as Ray Train takes it."""
        return self.num_workers if self.max_workers is None else (self.num_workers, self.max_workers)

    @property
    def backend(self) -> str:
        """Backend of torch.distributed: NCCL refuses two ranks on one GPU, Gloo serves CPUs and shared GPUs."""
        return "nccl" if self.gpus >= 1 else "gloo"

    def per_worker(self) -> dict[str, float]:
        """One rank's resources as Ray names them."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus > 0 else {})}

    def fits_on(self, node: NodeResources) -> int:
        """How many ranks one node holds at once."""
        by_cpus = math.floor(node.get("CPU", 0) / self.cpus + _ROUNDING)
        return min(by_cpus, self._fit_on_gpus(node.get("GPU", 0))) if self.gpus > 0 else by_cpus

    def _fit_on_gpus(self, gpus: float) -> int:
        if self.gpus >= 1:
            return math.floor(gpus / self.gpus + _ROUNDING)
        return math.floor(gpus + _ROUNDING) * math.floor(1 / self.gpus + _ROUNDING)  # a share lies on one GPU


def demand_of(launcher: LauncherConfig, nodes: Sequence[NodeResources]) -> Demand:
    """What the launcher asks for; one GPU per rank where the cluster has GPUs and the config leaves it open."""
    gpus = launcher.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) > 0 for node in nodes) else 0.0
    elastic = launcher.max_workers > launcher.min_workers
    most = launcher.max_workers if elastic else None
    return Demand(launcher.min_workers, launcher.cpus_per_worker, gpus, most)


def shortage(demand: Demand, nodes: Sequence[NodeResources]) -> str | None:
    """Why the nodes cannot hold all ranks at once, with the arithmetic and the keys to change; None if they can.

    Of an elastic run, the fewest ranks that it may have.
    """
    capacity = sum(demand.fits_on(node) for node in nodes)
    if capacity >= demand.num_workers:
        return None
    needed = [_count(demand.num_workers * demand.cpus, "CPU")]
    present = [_count(sum(node.get("CPU", 0) for node in nodes), "CPU")]
    keys = "launcher.cpus_per_worker"
    if demand.gpus > 0:
        needed.append(_count(demand.num_workers * demand.gpus, "GPU"))
        present.append(_count(sum(node.get("GPU", 0) for node in nodes), "GPU"))
        keys += " or launcher.gpus_per_worker"
    fewer = f"launcher.num_workers to {capacity} or {keys}" if capacity else keys
    return (
        f"the run asks for {demand} = {' and '.join(needed)}, but the cluster's {_count(len(nodes), 'node')} with"
        f" {' and '.join(present)} in all can hold {_count(capacity, 'such rank')} (a rank must fit on one node):"
        f" lower {fewer}, or add nodes"
    )


def runs_at_once(demand: Demand, nodes: Sequence[NodeResources]) -> int:
    """How many runs the nodes hold at the same time.

    Ranks are alike, and a run's ranks are placed together or not at all. So runs up to this number never wait for each
    other's resources, however the ranks are spread.
    """
    return sum(demand.fits_on(node) for node in nodes) // demand.num_workers


def refused_trials(wanted: int, demand: Demand, nodes: Sequence[NodeResources]) -> str | None:
    """Why so many trials cannot run at once, with the arithmetic; None if they can."""
    fit = runs_at_once(demand, nodes)
    if wanted <= fit:
        return None
    ranks = sum(demand.fits_on(node) for node in nodes)
    return (
        f"sweep.concurrent {wanted} asks for {wanted} x {demand}, but the cluster's {_count(len(nodes), 'node')} can"
        f" hold {_count(ranks, 'such rank')}, so {ranks} // {demand.num_workers} = {_count(fit, 'trial')} at once:"
        " lower sweep.concurrent, or leave it out"
    )


def _count(amount: float, noun: str) -> str:
    return f"{amount:g} {noun}{'' if amount == 1 else 's'}"
