"""Errors of a model on a set of records, exact for any batch size and number of ranks."""

from collections.abc import Iterator

import numpy as np
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.sections import BatchConfig, DataConfig, LossConfig
from rung.data.batch import GraphBatch
from rung.data.dataset import ShardDataset
from rung.data.loader import evaluation_batches
from rung.data.sampler import StepPlan, evaluation_plans
from rung.model.chgnet import Prediction, evaluate
from rung.training.context import TrainContext
from rung.training.elements import ElementSums
from rung.training.loss import loss_weights, target_errors
from rung.training.metrics import ErrorSums, Metrics, errors_from_sums


class Validator:
    """Evaluates models on records of a data set, spread over the ranks by predicted cost.

    Args:
        dataset: the data set.
        context: this rank.
        data: how batches are read.
        batch: limits of one evaluation.
    """

    def __init__(self, dataset: ShardDataset, context: TrainContext, data: DataConfig, batch: BatchConfig) -> None:
        self._dataset = dataset
        self._context = context
        self._data = data
        self._batch = batch

    def errors(self, model: CHGNet, record_ids: NDArray[np.int64], loss: LossConfig) -> Metrics:
        """MAE, RMSE and loss, as `rung.training.metrics` names them; every rank gets the same figures.

        Args:
            model: on the device.
            record_ids: (n,).
            loss: penalty and weights.

        Returns:
            empty if there are no records.

        Raises:
            DamagedShardError: a shard cannot be read.
        """
        return errors_from_sums(self.sums(model, record_ids, loss).reduced(), loss_weights(loss))

    def sums(self, model: CHGNet, record_ids: NDArray[np.int64], loss: LossConfig) -> ErrorSums:
        """Sums of errors over this rank's share of the records; arguments and errors as of `errors`."""
        sums = ErrorSums(self._context.device)
        for prediction, batch in self._predictions(model, record_ids):
            sums.add(target_errors(prediction, batch, loss).sums)
        return sums

    def element_sums(self, model: CHGNet, record_ids: NDArray[np.int64]) -> ElementSums:
        """Sums of errors by element over this rank's share of the records; arguments and errors as of `errors`."""
        sums = ElementSums(self._context.device)
        for prediction, batch in self._predictions(model, record_ids):
            sums.add(prediction, batch)
        return sums

    def largest_batch(self, record_ids: NDArray[np.int64]) -> int:
        """The most structures that this rank evaluates at once."""
        return max((plan.workload.num_structures for plan in self._plans(record_ids)), default=0)

    def _plans(self, record_ids: NDArray[np.int64]) -> Iterator[StepPlan]:
        rank, world_size = self._context.rank, self._context.world_size
        return evaluation_plans(self._dataset.index, record_ids, self._batch, rank, world_size)

    def _predictions(self, model: CHGNet, record_ids: NDArray[np.int64]) -> Iterator[tuple[Prediction, GraphBatch]]:
        """This rank's share of the records, evaluated batch by batch."""
        for _, batches in evaluation_batches(self._dataset, self._plans(record_ids), self._data, "evaluating"):
            for batch in batches:
                on_device = batch.to(self._context.device)
                yield evaluate(model, on_device, create_graph=False), on_device
