"""Plans: which records a rank evaluates in each step. Made from the index alone: nothing is read, nobody asked."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rung.config.sections import BatchConfig
from rung.data.fields import Labels
from rung.data.index import Index
from rung.data.partition import epoch_order, imbalance, num_steps, pack, predicted_cost, split_by_cost, step_bounds

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelCounts:
    """Number of labels in a set of records; what a mean over them divides by.

    Attributes:
        energy: structures with an energy.
        force: force components, 3 per atom of a structure with forces.
        stress: stress components, 9 per structure with a stress.
        magmom: atoms with a magnetic moment.
    """

    energy: int
    force: int
    stress: int
    magmom: int

    @classmethod
    def of(cls, labels: NDArray[np.uint8], num_atoms: NDArray[np.integer]) -> Self:
        """Count from the flags and sizes of the structures: both (n,)."""

        def count(label: Labels, per_structure: NDArray[np.integer] | int, components: int) -> int:
            return components * int(((labels & label > 0) * per_structure).sum())

        return cls(
            energy=count(Labels.ENERGY, 1, 1),
            force=count(Labels.FORCES, num_atoms, 3),
            stress=count(Labels.STRESS, 1, 9),
            magmom=count(Labels.MAGMOMS, num_atoms, 1),
        )

    def in_target_order(self) -> tuple[int, int, int, int]:
        """Energy, force, stress, magmom."""
        return self.energy, self.force, self.stress, self.magmom


@dataclass(frozen=True)
class Workload:
    """How much there is to do in a step, all ranks together.

    Attributes:
        num_structures: structures of the global batch.
        num_atoms: their atoms.
        num_angles: their angles.
        imbalance: predicted cost of the slowest rank over the mean; 1 is perfect.
    """

    num_structures: int
    num_atoms: int
    num_angles: int
    imbalance: float = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class StepPlan:
    """One step as one rank sees it.

    Attributes:
        epoch: counted from 0.
        step: within the epoch, counted from 0.
        is_last: whether it is the last of the epoch.
        workload: of the global batch.
        label_counts: of the global batch.
        micro_batches: record ids (n,) that this rank evaluates at once; none where no record falls to it.
    """

    epoch: int
    step: int
    is_last: bool
    workload: Workload
    label_counts: LabelCounts
    micro_batches: tuple[NDArray[np.int64], ...]


class StepSampler:
    """Plans of the training steps: every record once per epoch, and the same number of steps on every rank.

    It keeps no place: the plans of an epoch, from any step on, follow from the arguments and from what was left out.

    Args:
        index: of the data set.
        records: (n,) ids to train on.
        batch: size of the global batch, and limits of one rank.
        seed: of the order.
        rank: of this process.
        world_size: number of ranks.

    Attributes:
        steps_per_epoch: the same on every rank and in every epoch.

    Raises:
        ValueError: there are no records, or no such rank.
    """

    def __init__(
        self, index: Index, records: NDArray[np.int64], batch: BatchConfig, seed: int, rank: int, world_size: int
    ) -> None:
        if len(records) == 0:
            raise ValueError("there are no records to sample from: prepare more data, or lower split.* when preparing")
        self.steps_per_epoch = num_steps(len(records), batch.structures)
        self._seed = seed
        self._records = records
        self._work = _Work(index, batch, rank, world_size)
        self._work.report_oversized(records)
        self._left_out = np.empty(0, dtype=np.int64)

    def without(self, records: NDArray[np.int64]) -> Self:
        """Leave out these records (n,) where their turn comes; all others keep their place in the order."""
        self._left_out = records
        return self

    def plans(self, epoch: int, first: int = 0) -> Iterator[StepPlan]:
        """Plans of the steps of an epoch, from step `first` on."""
        order = epoch_order(len(self._records), self._seed, epoch)
        for step in range(first, self.steps_per_epoch):
            start, end = step_bounds(len(order), self.steps_per_epoch, step)
            ids = self._records[order[start:end]]
            ids = ids[~np.isin(ids, self._left_out)]
            shares, slowest = self._work.shares(ids)
            yield StepPlan(
                epoch=epoch,
                step=step,
                is_last=step == self.steps_per_epoch - 1,
                workload=self._work.workload(ids, slowest),
                label_counts=self._work.label_counts(ids),
                micro_batches=tuple(self._work.micro_batches(shares[self._work.rank])),
            )


def evaluation_plans(
    index: Index, records: NDArray[np.int64], batch: BatchConfig, rank: int, world_size: int
) -> Iterator[StepPlan]:
    """Plans that visit every record once over all ranks, one micro-batch each, the largest structures first.

    Ranks may have different numbers of plans; `workload` and `label_counts` are those of the plan itself.
    """
    work = _Work(index, batch, rank, world_size)
    shares, _ = work.shares(records)
    micro_batches = work.micro_batches(shares[rank])
    for step, ids in enumerate(micro_batches):
        yield StepPlan(
            epoch=0,
            step=step,
            is_last=step == len(micro_batches) - 1,
            workload=work.workload(ids),
            label_counts=work.label_counts(ids),
            micro_batches=(ids,),
        )


@dataclass(frozen=True)
class _Work:
    """Sizes of records applied to the functions of `rung.data.partition`."""

    index: Index
    batch: BatchConfig
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size}: ranks are 0 to {self.world_size - 1}")

    def shares(self, ids: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], float]:
        """Parts of these records that fall to each rank, and their imbalance."""
        index = self.index
        costs = predicted_cost(index.num_atoms[ids], index.num_bonds[ids], index.num_angles[ids])
        parts = split_by_cost(costs, self.world_size)
        return [ids[part] for part in parts], imbalance(costs, parts) if len(ids) else 1.0

    def workload(self, ids: NDArray[np.int64], slowest: float = 1.0) -> Workload:
        """Sizes of these records together."""
        index = self.index
        return Workload(len(ids), int(index.num_atoms[ids].sum()), int(index.num_angles[ids].sum()), slowest)

    def micro_batches(self, ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Group records into batches within the budgets."""
        bonds, angles = self.index.num_bonds[ids], self.index.num_angles[ids]
        return [ids[group] for group in pack(bonds, angles, self.batch.max_bonds, self.batch.max_angles)]

    def label_counts(self, ids: NDArray[np.int64]) -> LabelCounts:
        """Labels of these records."""
        return LabelCounts.of(self.index.labels[ids], self.index.num_atoms[ids])

    def report_oversized(self, ids: NDArray[np.int64]) -> None:
        """Say how many records are above a budget by themselves; they are evaluated alone, and never left out."""
        bonds, angles = self.index.num_bonds[ids], self.index.num_angles[ids]
        oversized = np.count_nonzero((bonds > self.batch.max_bonds) | (angles > self.batch.max_angles))
        if oversized and self.rank == 0:
            logger.warning(
                "%d of %d records exceed batch.max_bonds %d or batch.max_angles %d by themselves (largest: %d bonds,"
                " %d angles); each is evaluated alone",
                *(oversized, len(ids), self.batch.max_bonds, self.batch.max_angles, bonds.max(), angles.max()),
            )
