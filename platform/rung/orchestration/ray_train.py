"""A run on a Ray cluster: the same training loop in every worker of a Ray Train group."""

import logging
import math
import os
import secrets
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.train import (
    FailureConfig,
    LoggingConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

from rung.config.command import is_bad_input, is_for_the_user
from rung.config.logs import FORMAT_VARIABLE, configure_logging
from rung.config.sections import LauncherConfig
from rung.config.tree import TrainConfig
from rung.orchestration.cluster import Cluster, connected
from rung.orchestration.environment import environment
from rung.orchestration.failures import FailureGuard, FatalTrainingError, LaunchError, as_user_error
from rung.orchestration.interrupts import keeping_handlers
from rung.orchestration.ray_context import RayContext
from rung.orchestration.ray_metrics import RayMetricsSink
from rung.orchestration.resources import Demand, shortage
from rung.orchestration.system_metrics import monitored
from rung.orchestration.watch import DescriptionSink, modified, run_watched
from rung.training.context import TrainContext
from rung.training.resilience.storage import StorageError
from rung.training.run import DESCRIPTION_NAME, RunFolder, TrainSummary
from rung.training.sinks import MetricSink
from rung.training.step import NonFiniteError
from rung.training.trainer import train

logger = logging.getLogger(__name__)

_RESIZE_SECONDS = 30.0
"""Between two looks of Ray Train whether an elastic run can grow."""

_ELASTIC_START_SECONDS = 60.0
"""Longest start of an elastic run's ranks, which starts with as many as there is room for. For some time after the loss
of a node Ray still counts on it, and waits for it in vain."""

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a report blocks until the next check: 2 s would slow short epochs
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints of workers would reach the terminal twice
}
"""Ray Train reads these from the environment; what is set there already is kept."""


Loop = Callable[[TrainConfig, TrainContext, Sequence[MetricSink]], TrainSummary]
Worker = Callable[[], dict[str, Any]]


def run_on_ray(
    config: TrainConfig,
    sinks: Sequence[MetricSink] = (),
    callbacks: Sequence[UserCallback] = (),
    loop: Loop = train,
) -> TrainSummary:
    """Train the run of the config on a Ray cluster, and wait for it.

    Args:
        config: the run, with absolute paths (`rung.orchestration.paths`).
        sinks: receivers of metrics in this process.
        callbacks: more callbacks for Ray Train's controller.
        loop: what every rank runs.

    Raises:
        ValueError: config or data are at fault, or the cluster can never hold the ranks.
        LaunchError: the ranks did not start, were lost more often than launcher.max_failures, or met an error that
            would come again.
        KeyboardInterrupt: Ctrl-C before the ranks had begun, or twice; the same call resumes from the last checkpoint.
    """
    with connected(config.launcher.address) as cluster, _marked(RunFolder.of(config)) as mark:
        demand = cluster.demand(config.launcher)
        values = config.model_dump(mode="json")
        logger.info("starting %s with %s", demand, demand.backend)
        trainer = _trainer(config, demand, callbacks, partial(train_in_worker, loop, mark, values))
        lent = _environment(config.launcher, cluster)
        with lent, keeping_handlers() as in_main_thread, _asking_to_stop(config) as ask:
            if in_main_thread:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, ask)
            try:
                return run_watched(lambda: _fit(trainer), config, sinks)
            except TrainingFailedError as error:
                raise as_user_error(error, shortage(demand, cluster.nodes())) from None


def _trainer(
    config: TrainConfig,
    demand: Demand,
    callbacks: Sequence[UserCallback],
    worker: Worker,
) -> TorchTrainer:
    launcher = config.launcher
    return TorchTrainer(
        worker,  # holds the config: as train_loop_config Ray would show it, with its addresses, on the dashboard
        torch_config=TorchConfig(backend=demand.backend, timeout_s=math.ceil(config.faults.collective_timeout)),
        scaling_config=ScalingConfig(
            num_workers=demand.workers,
            use_gpu=demand.gpus > 0,
            resources_per_worker=demand.per_worker(),
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            name=config.run.name,
            storage_path=str(RunFolder.of(config).path / "ray"),
            failure_config=FailureConfig(
                max_failures=launcher.max_failures, controller_failure_limit=launcher.max_failures
            ),
            callbacks=[FailureGuard(launcher.max_failures), *callbacks],
            logging_config=LoggingConfig(log_level="CRITICAL"),  # FailureGuard says what a user needs to know
        ),
    )


def train_in_worker(loop: Loop, mark: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What every Ray Train worker runs.

    Args:
        loop: the training loop.
        mark: name of the file that the starting process left in the run's folder.
        values: the config as plain values.

    Returns:
        The run's summary as plain values.

    Raises:
        FatalTrainingError: in place of an error that would come again.
    """
    config = TrainConfig.model_validate(values)
    context = RayContext(RunFolder.of(config).stop_request)
    configure_logging(context.rank, config.run.name)
    with _marking_fatal_errors(context.rank):
        check_storage_is_shared(RunFolder.of(config).path / mark, context.rank)
        with monitored(config, first_on_node=context.first_on_node):
            return loop(config, context, [DescriptionSink(), RayMetricsSink()]).to_dict()


@contextmanager
def _marking_fatal_errors(rank: int) -> Iterator[None]:
    """Turn errors that the same config, data and code raise again into fatal ones: a restart would only delay them."""
    try:
        yield
    except (ValueError, NonFiniteError, StorageError, *_MISTAKES, *_BAD_PATHS) as error:
        if is_for_the_user(error):
            raise FatalTrainingError(str(error), bad_input=is_bad_input(error)) from error
        raise FatalTrainingError(f"rank {rank} failed:\n{traceback.format_exc()}", bad_input=False) from error


_BAD_PATHS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_MISTAKES = (TypeError, LookupError, AttributeError, ImportError, AssertionError)


def check_storage_is_shared(mark: Path, rank: int) -> None:
    """Refuse storage that this rank does not share with the process that started the run.

    Raises:
        ValueError: names the rank, its host and the folder.
    """
    if not mark.exists():
        raise ValueError(
            f"rank {rank} on {os.uname().nodename} does not see the run's folder {mark.parent} as the starting process"
            " does: set run.storage to a folder that every node of the cluster mounts at the same path"
        )


@contextmanager
def _marked(folder: RunFolder) -> Iterator[str]:
    """Leave a file of a name never used before in the run's folder while the run goes on."""
    mark = folder.write(f".started-{secrets.token_hex(8)}", "")
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def _asking_to_stop(config: TrainConfig) -> Iterator[Callable[[int, FrameType | None], None]]:
    """A signal handler that leaves the file by which the ranks are asked to checkpoint and leave.

    Ctrl-C ends a run whose ranks have not begun at once, since there is nothing to save; so does a second one.
    """
    folder = RunFolder.of(config)
    request, description = folder.stop_request, folder.path / DESCRIPTION_NAME
    request.unlink(missing_ok=True)  # of a start that was killed before it could take it back
    before = modified(description)

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's signature)
        at_terminal = number == signal.SIGINT
        if at_terminal and modified(description) == before:
            raise KeyboardInterrupt
        request.touch()
        signal.signal(number, signal.default_int_handler if at_terminal else signal.SIG_DFL)
        if at_terminal:
            logger.warning("stopping: the ranks finish their step and save it; Ctrl-C again ends them at once")

    try:
        yield ask
    finally:
        request.unlink(missing_ok=True)


def _fit(trainer: TorchTrainer) -> TrainSummary:
    values = _fit_in_a_thread(trainer).return_value
    if not isinstance(values, dict):
        raise LaunchError(f"Ray Train ended without the run's summary (found {values!r})")
    return TrainSummary(**values)


def _fit_in_a_thread(trainer: TorchTrainer) -> Result:
    """In the main thread Ray Train takes Ctrl-C for itself, and aborts without a checkpoint; so fit in another."""
    if threading.current_thread() is not threading.main_thread():
        return trainer.fit()
    fitted: Future[Result] = Future()

    def fit() -> None:
        try:
            fitted.set_result(trainer.fit())
        except BaseException as error:  # noqa: BLE001 -- raised where the result is waited for
            fitted.set_exception(error)

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    return fitted.result()


@contextmanager
def _environment(launcher: LauncherConfig, cluster: Cluster) -> Iterator[None]:
    """Set what Ray Train takes from the environment, and take it back afterwards."""
    start_timeout = launcher.start_timeout / (launcher.max_failures + 1)
    if launcher.max_workers > launcher.min_workers:
        start_timeout = min(start_timeout, _ELASTIC_START_SECONDS)
    # Ray Train's clean-up process guesses the cluster, and fails where a second one runs on the machine. It inherits
    # what the controller is given, which is no more than the names in this set.
    ENV_VARS_TO_PROPAGATE.update(("RAY_ADDRESS", FORMAT_VARIABLE))
    wanted = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(start_timeout),
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    defaults = _ENVIRONMENT
    if not cluster.may_grow:  # nor will anyone take a node of it away
        defaults = defaults | {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
    with environment(wanted, defaults=defaults):
        yield
