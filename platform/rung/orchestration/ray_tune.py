"""A sweep on a Ray cluster: Ray Tune runs the trials and asks a scheduler which of them go on.

Tune's own restore is not used. What a trial is and how far it came stands in its folder, so every start gives Tune a
new experiment of the trials that are left: nothing is lost between two of Tune's snapshots, a trial keeps its number
and so its run, and `sweep.trials` may be raised later.
"""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from rung.config.tree import SweepConfig
from rung.orchestration.cluster import Cluster, connected
from rung.orchestration.environment import environment
from rung.orchestration.gate import PHYSICS_NAME, check_start
from rung.orchestration.interrupts import keeping_handlers
from rung.orchestration.paths import require_writable, resolve_paths
from rung.orchestration.ray_train import Loop
from rung.orchestration.ray_trial import run_trial
from rung.orchestration.resources import Demand, refused_trials, runs_at_once, shortage
from rung.orchestration.sweep_journal import SweepJournal
from rung.orchestration.sweep_scheduler import SweepScheduler
from rung.orchestration.sweep_tracking import SweepTracker
from rung.sweeps.outcome import best_of, lessons, outcome_of, outcomes_of
from rung.sweeps.population import Population
from rung.sweeps.report import REPORT_NAME, write_report
from rung.sweeps.results import write_results
from rung.sweeps.rungs import Rungs
from rung.sweeps.stages import Stages
from rung.sweeps.table import LiveTable
from rung.sweeps.trials import SweepFolder, Trials, trial_name
from rung.training.run import SUMMARY_NAME
from rung.training.trainer import train

logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the runs keep their own metrics
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots serve a restore that is not used
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's last report says how it ended, and has no errors
}
_DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}
"""What the process of a trial with ranks of its own takes: no CPU, or two trials could each hold what the other's ranks
need; a place on the head node, which is not given back like a cheap worker node."""


def run_sweep(config: SweepConfig, loop: Loop = train) -> Path:
    """Run a sweep, or go on with it, and write its results.

    Args:
        config: the sweep.
        loop: what every rank of a trial runs.

    Returns:
        Path of its summary.json.

    Raises:
        ValueError: config, data or cluster are at fault, the initial weights break a law of the physics gate, or no
            trial finished.
        KeyboardInterrupt: Ctrl-C; the same call goes on with the trials that are left.
    """
    config = _resolved(config)
    require_writable("run.storage", Path(config.run.storage) / config.run.name)
    folder = SweepFolder.opened(config).path
    trials = Trials(config)
    trials.check_draws()
    tracker = SweepTracker(config) if config.tracking.kind == "mlflow" else None
    try:
        if tracker is not None:
            tracker.catch_up(trials)
        if trials.to_do():
            if not (folder / PHYSICS_NAME).exists():
                check_start(config)
            _run_trials(config, trials, tracker, loop)
        return _finish(config, trials, tracker, folder)
    except BaseException:
        if tracker is not None:
            tracker.interrupt()
        raise


def trials_at_once(config: SweepConfig, cluster: Cluster) -> int:
    """How many trials run at the same time.

    Raises:
        ValueError: the cluster cannot hold one trial, or not as many as the config asks for.
    """
    demand = cluster.demand(config.launcher)
    nodes = cluster.nodes()
    wanted = config.sweep.concurrent
    lack = shortage(demand, nodes) if wanted is None else refused_trials(wanted, demand, nodes)
    if lack is None:
        return wanted or runs_at_once(demand, nodes)
    if wanted is None:
        raise ValueError(f"{lack}; on a cluster that grows with its work, set sweep.concurrent")
    if not cluster.may_grow:
        raise ValueError(lack)
    logger.warning("%s, or wait for more nodes", lack)
    return wanted


def _run_trials(config: SweepConfig, trials: Trials, tracker: SweepTracker | None, loop: Loop) -> None:
    # Tune looks for the files that its own loggers would have written, and warns of each that is not there.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    with connected(config.launcher.address) as cluster, environment({}, defaults=_ENVIRONMENT), keeping_handlers():
        at_once = trials_at_once(config, cluster)
        demand = cluster.demand(config.launcher)
        to_do = trials.to_do()
        logger.info("%d trials to do, %d at a time, each with %s", len(to_do), at_once, demand)
        before = outcomes_of(trials, config.sweep.objectives)
        scheduler = SweepScheduler(config.sweep.scheduler, config.sweep.objectives, before)
        table = LiveTable(sys.stderr, trials.total, at_once)
        journal = SweepJournal(config.sweep, trials, scheduler, tracker, table)
        with _scratch(trials.folder.parent / ".tune") as scratch:
            tune.Tuner(
                tune.with_resources(
                    partial(run_trial, sweep=config.model_dump(mode="json"), loop=loop), _resources(demand)
                ),
                tune_config=tune.TuneConfig(
                    search_alg=_Proposals(trials, config, scheduler, journal.drop),
                    scheduler=scheduler,
                    num_samples=-1,  # the proposals say when there are no more
                    max_concurrent_trials=at_once,
                    trial_name_creator=_name,
                    trial_dirname_creator=_folder_name,
                ),
                run_config=tune.RunConfig(
                    name=config.run.name,
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[journal],
                    failure_config=tune.FailureConfig(max_failures=config.launcher.max_failures),
                ),
            ).fit()
    left = trials.to_do()
    if left:
        logger.warning("interrupted with %d trials to do: the same command goes on with them", len(left))
        raise KeyboardInterrupt


def _finish(config: SweepConfig, trials: Trials, tracker: SweepTracker | None, folder: Path) -> Path:
    outcomes = outcomes_of(trials, config.sweep.objectives)
    summary = write_results(config, outcomes)
    write_report(config, outcomes, summary, folder)
    best = best_of(outcomes)
    if tracker is not None and best is not None:
        tracker.finish(best, summary, folder / "best", [folder / SUMMARY_NAME, folder / REPORT_NAME])
    logger.info("%s Report: %s", summary["verdict"], folder / REPORT_NAME)
    return folder / SUMMARY_NAME


class _Proposals(Searcher):
    """Gives Tune the numbers of the trials that are left; a trial is drawn when its turn comes.

    Where trials train in stages, a trial's turn comes once in each.
    """

    def __init__(
        self,
        trials: Trials,
        config: SweepConfig,
        scheduler: SweepScheduler,
        drop: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._trials = trials
        self._objectives = config.sweep.objectives
        self._scheduler = scheduler
        self._drop = drop
        self._stages = _stages(config, trials)
        self._next = [number for number in trials.to_do() if not self._waits(number)]

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002 (trials go by number here)
        """The next trial; None while the others are waited for."""
        if not self._next and self._stages is not None:
            decision = self._stages.decide()
            self._next = decision.go_on
            for number in decision.drop:
                self._drop(number)
        if not self._next:
            return None if self._stages is not None and self._trials.to_do() else Searcher.FINISHED
        number = self._next.pop(0)
        trial = self._trials.propose(number, lessons(outcomes_of(self._trials, self._objectives)))
        self._scheduler.expect(
            number,
            searched=trial.role == "search",
            last_epoch=self._trials.config_of(trial).training.epochs,
            pause_after=self._stages.pause_after(trial) if self._stages is not None else None,
        )
        return {"number": number}

    def _waits(self, number: int) -> bool:
        """Whether a trial waits; what an earlier start wrote down may be a moment old."""
        if self._stages is None or number not in {trial.number for trial in self._trials.known()}:
            return False
        waits = self._stages.waits(outcome_of(self._trials, self._trials[number], self._objectives))
        self._trials.update(number, state="waiting" if waits else "running")
        return waits

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The journal keeps the books."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept here."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept here."""

    def get_state(self) -> dict[str, Any]:
        """Nothing is kept here."""
        return {}


def _stages(config: SweepConfig, trials: Trials) -> Stages | None:
    match config.sweep.scheduler.kind:
        case "asha":
            return Rungs(config, trials)
        case "pbt":
            return Population(config, trials)
        case "median" | "none":
            return None


def _resources(demand: Demand) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([demand.per_worker() if demand.num_workers == 1 else _DRIVER])


def _name(trial: Any) -> str:
    return trial_name(trial.config["number"])


def _folder_name(trial: Any) -> str:
    return f"{_name(trial)}-{trial.trial_id}"  # a trial is started once in each of its stages


def _resolved(config: SweepConfig) -> SweepConfig:
    config = resolve_paths(config)
    probe = config.sweep.probe
    if probe is None:
        return config
    elsewhere = resolve_paths(config.model_copy(update={"data": config.data.model_copy(update={"path": probe})}))
    return config.model_copy(update={"sweep": config.sweep.model_copy(update={"probe": elsewhere.data.path})})


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for what Tune writes, which nobody reads; a start that was killed may have left one."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
