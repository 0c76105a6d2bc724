"""Energies that a model predicts for many records, spread over the ranks; nothing is differentiated."""

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.sections import BatchConfig, DataConfig
from rung.data.dataset import ShardDataset
from rung.data.loader import BatchLoader
from rung.data.sampler import evaluation_plans
from rung.model.chgnet import evaluate
from rung.training.context import TrainContext
from rung.training.distributed import sum_over_ranks


class EnergyPredictor:
    """Predicts energies of records of one data set, the same figures on every rank."""

    def __init__(self, dataset: ShardDataset, context: TrainContext, data: DataConfig, batch: BatchConfig) -> None:
        self.dataset = dataset
        self._context = context
        self._data = data
        self._batch = batch

    def energies(self, model: CHGNet, record_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Energy with the model's reference: (n,), eV/atom, in the order of the ids, which ascend."""
        context = self._context
        found = torch.zeros(len(record_ids), dtype=torch.float64, device=context.device)
        plans = evaluation_plans(self.dataset.index, record_ids, self._batch, context.rank, context.world_size)
        for plan, batches in BatchLoader(self.dataset, plans, self._data):
            rows = torch.from_numpy(np.searchsorted(record_ids, np.concatenate(plan.micro_batches)))
            parts = [
                evaluate(model, batch.to(context.device), forces=False, stress=False, magmoms=False).energy
                for batch in batches
            ]
            found[rows.to(context.device)] = torch.cat(parts).double()
        return sum_over_ranks(found).cpu().numpy()
