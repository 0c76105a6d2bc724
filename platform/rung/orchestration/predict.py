"""Batch prediction: one process reads structures and stores what comes back; this machine or a Ray cluster predicts."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from data_prep.parallel import map_over_processes
from data_prep.progress import Progress
from data_prep.structures import StructureFiles, read_frame
from rung.config.inference import PredictConfig
from rung.config.preparation import GraphConfig
from rung.config.sections import DataConfig, ModelConfig
from rung.data.codec import DamagedShardError
from rung.data.dataset import MANIFEST_NAME, RecordReader, ShardDataset
from rung.data.record import GraphRecord, Reason, RecordError
from rung.data.staging import is_url, staged
from rung.inference.store import PredictionStore, PredictSummary
from rung.inference.work import Item, ModelCopy, Outcome, Reader, Work
from rung.model.support import cutoffs_of
from rung.orchestration.paths import require_writable
from rung.training.initial import load_model

logger = logging.getLogger(__name__)

ChunkMap = Callable[[Work, Iterable[Sequence[Item]]], Iterable[list[Outcome]]]
"""A lazy map that keeps the order, as the built-in one does."""


class NoStructureError(ValueError):
    """The input holds no structure."""


def run_prediction(config: PredictConfig) -> PredictSummary:
    """Predict for every structure of the input, or go on with it.

    Raises:
        ValueError: config, model, input or cluster are at fault; the message says what to change.
        UnfinishedError: a worker or a task was lost; the same call goes on behind what is finished.
    """
    require_writable("output", config.output)
    if config.parallel.kind == "local":
        workers = config.parallel.workers
        return predict(config, lambda work, chunks: map_over_processes(work, chunks, workers))
    from rung.orchestration.ray_predict import predict_on_ray  # noqa: PLC0415 (this machine alone needs no Ray)

    return predict_on_ray(config)


def predict(config: PredictConfig, run_chunks: ChunkMap) -> PredictSummary:
    """Predict for every structure of the input.

    A second call with the same config finds the predictions; after a call that was killed, it goes on.

    Args:
        config: the model, what to predict for, and where to.
        run_chunks: runs the work on the chunks.

    Raises:
        ModelFileError: the model cannot be loaded.
        BrokenFileError: a file of the input cannot be read.
        ShardError: a prepared set of the input cannot be read, or has other cutoffs than the model.
        OutputError: the output holds something else.
        NoStructureError: there is nothing to predict for.
    """
    start = time.monotonic()
    model = load_model(ModelConfig(init=config.model))
    copy = ModelCopy.of(model)
    with closing(_open(config, cutoffs_of(model))) as source:
        plan = {"model_sha256": copy.sha256, "input": source.identity(), "chunk": config.chunk}
        plan |= {"properties": sorted(config.properties)}
        store = PredictionStore(Path(config.output).expanduser().absolute(), config.format, plan)
        if (known := store.finished()) is not None:
            logger.info("already predicted: %s holds %s structures", store.predictions, f"{known.num_predicted:,}")
            return known
        first = store.done * config.chunk
        if first:
            logger.info("going on behind %s structures", f"{first:,}")
        work = Work(copy, source.read, config.budget, config.properties)
        with Progress("predict", source.progress, lambda: f"{store.num_failed:,} failed") as progress:
            for outcomes in run_chunks(work, progress.chunks(source.items(), config.chunk, skip=first)):
                store.add(list(progress.counted(outcomes)))
    return _finish(config, store, copy, progress, time.monotonic() - start)


def _finish(
    config: PredictConfig, store: PredictionStore, model: ModelCopy, progress: Progress, seconds: float
) -> PredictSummary:
    total = progress.skipped + progress.done
    if total == 0:
        raise NoStructureError(f"input {', '.join(config.inputs)} holds no structure: check it")
    failed = store.join()
    summary = PredictSummary(
        predictions=str(store.predictions),
        failures=str(store.failures),
        model=config.model,
        model_sha256=model.sha256,
        num_structures=total,
        num_predicted=total - failed.total(),
        failed=dict(failed),
        seconds=seconds,
        structures_per_second=progress.rate,
    )
    store.finish(summary)
    if failed:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in failed.most_common())
        logger.warning("%s of %s structures failed (%s): %s", failed.total(), total, reasons, store.failures)
    logger.info("%s: %s structures, %.1f/s", store.predictions, f"{summary.num_predicted:,}", progress.rate)
    return summary


class _Input(Protocol):
    """Structures to predict for."""

    read: Reader

    def items(self) -> Iterator[Item]: ...
    def identity(self) -> dict[str, Any]: ...
    def progress(self) -> tuple[int, int, str]: ...
    def close(self) -> None: ...


class _Files:
    """Structures of files."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._source = StructureFiles(paths)
        self.read: Reader = read_frame
        self.identity, self.progress, self.close = self._source.identity, self._source.progress, self._source.close

    def items(self) -> Iterator[Item]:
        for frame in self._source.frames():
            yield Item(frame.position, "#".join(frame.path), frame)


class _Shards:
    """Records of a prepared set, whatever their split; their graphs are there already."""

    def __init__(self, path: str, cutoffs: GraphConfig) -> None:
        self._dataset = ShardDataset(staged(DataConfig(path=path)), cutoffs)
        splits = [self._dataset.select(split) for split in ("train", "validation", "test")]
        self._ids = sorted(record_id for ids in splits for record_id in ids.tolist())
        self.read: Reader = partial(_read_record, self._dataset.records)
        self._given = 0

    def items(self) -> Iterator[Item]:
        names = self._dataset.record_names(self._ids)
        for index, (record_id, name) in enumerate(zip(self._ids, names, strict=True)):
            self._given = index + 1
            yield Item(index, name, record_id)

    def identity(self) -> dict[str, Any]:
        return {"manifest_hash": self._dataset.manifest_hash}

    def progress(self) -> tuple[int, int, str]:
        return self._given, len(self._ids), " structures"

    def close(self) -> None:
        """Shards are closed with their readers."""


def _open(config: PredictConfig, cutoffs: GraphConfig) -> _Input:
    paths = config.inputs
    prepared = [path for path in paths if not is_url(path) and (Path(path).expanduser() / MANIFEST_NAME).exists()]
    if not prepared:
        return _Files(paths)
    if len(paths) > 1:
        raise ValueError(f"input names the prepared set {prepared[0]} and more: predict for one prepared set at a time")
    return _Shards(prepared[0], cutoffs)


def _read_record(reader: RecordReader, record_id: int) -> GraphRecord:
    try:
        return reader.read([record_id])[0]
    except DamagedShardError as error:
        raise RecordError(Reason.MALFORMED, str(error)) from error
