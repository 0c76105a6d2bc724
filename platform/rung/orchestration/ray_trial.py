"""What Tune runs for a trial: an ordinary run, in this process where one rank is enough, else on ranks of its own.

A run of Ray Train costs five to seven processes and 11 to 28 s before its first step (two slow cores), and a sweep is
made of many short runs; so it is for trials of several ranks alone.
"""

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from rung.config.sections import LossConfig
from rung.config.tree import SweepConfig, TrainConfig
from rung.evaluation.evaluate import open_for
from rung.orchestration.failures import LaunchError
from rung.orchestration.ray_metrics import RayMetricsSink
from rung.orchestration.ray_train import Loop, run_on_ray
from rung.orchestration.system_metrics import monitored
from rung.orchestration.watch import DescriptionSink
from rung.sweeps.trials import Trials, trial_name
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.trainer import train
from rung.training.validate import Validator

ERROR_NAME = "error.txt"
"""File in a failed trial's folder with the whole traceback."""


class TrialContext(LocalContext):
    """One rank in the trial's own process. Reporting an epoch waits until Tune has decided whether to go on."""

    ends_at_reports = True

    def report(self, metrics: Mapping[str, float]) -> None:
        """Tell Tune."""
        tune.report(dict(metrics))


def run_trial(point: Mapping[str, Any], sweep: Mapping[str, Any], loop: Loop = train) -> None:
    """Run, or go on with, one trial; its last report says how it ended.

    Errors are reported rather than raised: Tune restarts what it sees fail, which is for processes that were lost. The
    same trial would run out of memory, or diverge, again.

    Args:
        point: holds the trial's `number`.
        sweep: the sweep's config as plain values.
        loop: what every rank runs.
    """
    logging.getLogger("rung").setLevel(logging.WARNING)
    config = SweepConfig.model_validate(sweep)
    trials = Trials(config)
    folder = trials.folder / trial_name(point["number"])
    try:
        if not folder.exists():
            raise ValueError(  # noqa: TRY301 (reported like any other error)
                f"{folder} is not seen from the node of this trial: set run.storage to a folder that every node of the"
                " cluster mounts at the same path"
            )
        trial = trials[point["number"]]
        _train(trials.config_of(trial), loop)
        probe = probe_errors(config, folder) if config.sweep.probe else {}
    except Exception as error:  # noqa: BLE001 (whatever it is, the other trials go on, and the report names it)
        RunFolder(folder).write(ERROR_NAME, traceback.format_exc())
        tune.report({"failed": _message(error)})
    else:
        tune.report({"completed": True, **{f"probe/{name}": value for name, value in probe.items()}})


def probe_errors(config: SweepConfig, folder: Path) -> dict[str, float]:
    """Errors on the probe's validation materials that say how much of the old functional is forgotten.

    Forces alone: they do not depend on the elemental reference, which the new functional has replaced.

    Args:
        config: the sweep.
        folder: of a complete run.

    Returns:
        probe_force_mae, eV/Å.

    Raises:
        ValueError: the probe cannot be read, or its validation materials have no forces.
    """
    context = LocalContext()
    model = RunFolder(folder).load_model("best").to(context.device)
    data = config.data.model_copy(update={"path": config.sweep.probe})
    dataset = open_for(model, data)
    validator = Validator(dataset, context, data, config.batch)
    errors = validator.errors(model, dataset.select("validation"), LossConfig())
    if "force_mae" not in errors:
        raise ValueError(f"sweep.probe {config.sweep.probe} has no forces of validation materials: choose another set")
    return {"probe_force_mae": errors["force_mae"]}


def _train(config: TrainConfig, loop: Loop) -> None:
    if config.launcher.max_workers == 1:
        with monitored(config, first_on_node=True):
            loop(config, TrialContext(), [DescriptionSink(), RayMetricsSink()])
    elif not run_on_ray(config, callbacks=[TuneReportCallback()], loop=loop).completed:
        raise LaunchError("the ranks ended before the last step")


def _message(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return text if isinstance(error, ValueError | LaunchError) else f"{type(error).__name__}: {text}"
