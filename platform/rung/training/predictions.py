"""Energies that a model predicts for many records, spread over the ranks; nothing is differentiated."""

import logging
from collections.abc import Iterable

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.sections import DataConfig
from rung.config.tree import TrainConfig
from rung.data.codec import DamagedShardError
from rung.data.dataset import ShardDataset
from rung.data.loader import evaluation_batches
from rung.data.sampler import StepPlan, evaluation_plans
from rung.model.chgnet import evaluate
from rung.training.context import TrainContext
from rung.training.distributed import gather_text, sum_over_ranks

logger = logging.getLogger(__name__)


class EnergyPredictor:
    """Predicts energies of records of one data set, the same figures on every rank.

    Args:
        dataset: the data set.
        context: this rank.
        config: limits of one evaluation, how batches are read, and `faults.damaged_shards`.
    """

    def __init__(self, dataset: ShardDataset, context: TrainContext, config: TrainConfig) -> None:
        self.dataset = dataset
        self._context = context
        self._config = config

    def energies(self, model: CHGNet, record_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Energy with the model's reference of the records, whose ids ascend: their ids (n,), and eV/atom (n,).

        Where `faults.damaged_shards` is skip, those of a shard that cannot be read are left out.

        Raises:
            DamagedShardError: a shard cannot be read, and the config does not put up with it.
        """
        while True:
            try:
                found, damaged = self._share(model, record_ids), ""
            except DamagedShardError as error:
                if self._config.faults.damaged_shards == "refuse":
                    raise
                logger.warning("%s", error)
                found, damaged = None, error.shard
            lost = set(gather_text(damaged)) - {""} if self._config.faults.damaged_shards == "skip" else set()
            if found is not None and not lost:
                return record_ids, sum_over_ranks(found).cpu().numpy()
            record_ids = np.setdiff1d(record_ids, self.dataset.records_of(lost))

    def _share(self, model: CHGNet, record_ids: NDArray[np.int64]) -> torch.Tensor:
        """What this rank predicts of the records: (n,), zero for those of other ranks."""
        context = self._context
        plans = evaluation_plans(self.dataset.index, record_ids, self._config.batch, context.rank, context.world_size)
        return energies_of_plans(model, self.dataset, record_ids, plans, self._config.data)


def energies_of_plans(
    model: CHGNet, dataset: ShardDataset, record_ids: NDArray[np.int64], plans: Iterable[StepPlan], data: DataConfig
) -> torch.Tensor:
    """Energies with the model's reference of the records that some plans visit.

    Args:
        model: on the device to compute on.
        dataset: the data set.
        record_ids: (n,) ascending.
        plans: of some of these records.
        data: how batches are read.

    Returns:
        (n,) float64, eV/atom, on the model's device; 0 for records that no plan visits.

    Raises:
        DamagedShardError: a shard cannot be read.
    """
    device = next(model.parameters()).device
    found = torch.zeros(len(record_ids), dtype=torch.float64, device=device)
    for plan, batches in evaluation_batches(dataset, plans, data, "predicting energies"):
        rows = torch.from_numpy(np.searchsorted(record_ids, np.concatenate(plan.micro_batches)))
        parts = [
            evaluate(model, batch.to(device), forces=False, stress=False, magmoms=False).energy for batch in batches
        ]
        found[rows.to(device)] = torch.cat(parts).double()
    return found
