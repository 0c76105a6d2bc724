"""One door to a training run, whoever starts the loop: this process, torchrun or Ray."""

import logging
import os
from collections.abc import Sequence

import torch

from rung.config.sections import LauncherConfig
from rung.config.tree import TrainConfig
from rung.data.staging import manifest_hash
from rung.orchestration.gate import check_start
from rung.orchestration.interrupts import keeping_handlers
from rung.orchestration.mlflow_sink import tracker, tracking_uri
from rung.orchestration.paths import require_writable, resolve_paths
from rung.orchestration.provenance import note_source
from rung.orchestration.system_metrics import monitored
from rung.orchestration.watch import DescriptionSink, run_watched
from rung.training.context import LocalContext, TorchrunContext
from rung.training.run import SUMMARY_NAME, RunFolder, TrainSummary, check_same_run
from rung.training.sinks import MetricSink, ProgressSink
from rung.training.trainer import train
from rung.training.wording import in_words

logger = logging.getLogger(__name__)


def launch(config: TrainConfig, context: LocalContext | None = None) -> TrainSummary:
    """Train the run of the config, or go on with it, and wait for it.

    Args:
        config: the run.
        context: launcher.kind local: the rank, for a caller that wants to know what it was asked; a new one if absent.

    Raises:
        ValueError: config, data, weights or cluster are at fault; the message says what to change.
        NonFiniteError: launcher.kind local or torchrun: before the update that would have spoilt the weights.
        HungRankError: launcher.kind torchrun: a rank did not come to where the others wait for it.
        LaunchError: launcher.kind ray: the ranks did not start, or ended before the run.
        KeyboardInterrupt: launcher.kind ray: Ctrl-C before its ranks had begun, or twice; else it ends with a summary
            that is not completed.
    """
    config = resolve_paths(config)
    check_devices(config.launcher)
    sinks = sinks_of(config)
    require_writable("run.storage", RunFolder.of(config).path)
    check_start(config)
    if os.environ.get("RANK", "0") == "0":
        note_source(RunFolder.of(config))
    summary = _launch(config, sinks, context)
    if summary.completed and os.environ.get("RANK", "0") == "0":
        _tell(summary)
    return summary


def _launch(config: TrainConfig, sinks: Sequence[MetricSink], context: LocalContext | None) -> TrainSummary:
    match config.launcher.kind:
        case "local":
            return run_watched(lambda: _train_here(config, context or LocalContext()), config, sinks)
        case "torchrun":
            return _train_under_torchrun(config, sinks)
        case "ray":
            summary = finished_summary(config)
            if summary is not None:
                return run_watched(lambda: summary, config, sinks)
            from rung.orchestration.ray_train import run_on_ray  # noqa: PLC0415 (the other launchers need no Ray)

            return run_on_ray(config, sinks)


def _tell(summary: TrainSummary) -> None:
    """What the run is worth, on the materials that took no part in any choice where there are any."""
    split = "test" if summary.best.get("test") else "validation"
    for who, errors in (("untouched model", summary.zero_step), (f"best, of step {summary.best_step}", summary.best)):
        if errors.get(split):
            records = f"{summary.num_records[split]:,} {split} records"
            logger.info("errors on %s: %s: %s", records, who, in_words(errors[split]))


def check_devices(launcher: LauncherConfig) -> None:
    """Look at what the config asks of processes that Ray does not place: no GPU may be missed in silence.

    Raises:
        ValueError: a GPU is asked for, and PyTorch sees none.
    """
    if launcher.kind == "ray":
        return  # the cluster's resources decide
    if launcher.gpus_per_worker and not torch.cuda.is_available():
        raise ValueError(
            f"launcher.gpus_per_worker is {launcher.gpus_per_worker:g}, but PyTorch {torch.__version__} sees no GPU on"
            " this machine: leave launcher.gpus_per_worker out to train on CPUs, or let `python jobs/doctor.py` say why"
        )
    if launcher.kind == "local" and launcher.min_workers > 1:
        logger.warning(
            "launcher.kind 'local' trains with one rank, this process: launcher.num_workers %s is not used; set"
            " launcher.kind to ray for more",
            launcher.num_workers,
        )


def finished_summary(config: TrainConfig) -> TrainSummary | None:
    """The summary of a run that is complete already, found without waiting for a cluster.

    Raises:
        ValueError: the folder holds a complete run with other settings or data.
    """
    folder = RunFolder.of(config)
    path = folder.path / SUMMARY_NAME
    if not path.exists():
        return None
    summary = TrainSummary.read(path)
    state = folder.checkpoints().newest()
    if not summary.completed or state is None:
        return None
    changes = check_same_run(config, manifest_hash(config.data.path), state, folder.path)
    more = any(change.startswith("training.epochs:") for change in changes)  # the run may be asked to go on
    return None if more else summary


def sinks_of(config: TrainConfig) -> list[MetricSink]:
    """The progress bar, and the tracker that the config names.

    Raises:
        ValueError: the tracker cannot write where the config says.
    """
    if config.tracking.kind == "off":
        return [ProgressSink()]
    tracking_uri(config)
    return [ProgressSink(), tracker(config)]


def _train_here(config: TrainConfig, context: LocalContext) -> TrainSummary:
    with keeping_handlers() as in_main_thread:
        if in_main_thread:
            context.handle_signals()
        with monitored(config, first_on_node=True):
            return train(config, context, [DescriptionSink()])


def _train_under_torchrun(config: TrainConfig, sinks: Sequence[MetricSink]) -> TrainSummary:
    context = TorchrunContext(config.faults.collective_timeout)
    with keeping_handlers() as in_main_thread:
        if in_main_thread:
            context.handle_signals()
        try:
            with monitored(config, first_on_node=os.environ.get("LOCAL_RANK", "0") == "0"):
                if context.rank == 0:
                    return run_watched(lambda: train(config, context, [DescriptionSink()]), config, sinks)
                return train(config, context)
        finally:
            context.close()
