"""A sweep in MLflow's books: a parent run, and each trial's run below it. All is written by the driver.

Trials are followed through their folders, so a child is found again by every start of the sweep, and an MLflow that
does not answer delays no trial. What concerns the parent is tried once, and a failure is a warning.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from rung.config.registry import RegistryConfig
from rung.config.secrets import redacted, redacted_values
from rung.config.tree import FinetuneConfig, SweepConfig
from rung.orchestration.mlflow_run import RUN_ID_NAME, client_of, experiment_of, flatten, is_alive
from rung.orchestration.mlflow_sink import tracker, tracking_uri
from rung.orchestration.model_log import Publication
from rung.orchestration.registry import PromotionError, promote, publish
from rung.orchestration.watch import RunWatcher
from rung.sweeps.outcome import Outcome
from rung.sweeps.trials import Trials, trial_name
from rung.training.run import SUMMARY_NAME, RunFolder

logger = logging.getLogger(__name__)

_STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
_MAX_TAG = 4000  # characters


class SweepTracker:
    """The sweep's runs in MLflow."""

    def __init__(self, config: SweepConfig) -> None:
        """Find or create the parent run.

        Raises:
            ValueError: MLflow cannot write to the configured place, or does not answer.
        """
        self._config = config
        self.uri = tracking_uri(config)
        self._folder = RunFolder.of(config)
        self._client: MlflowClient = client_of(self.uri)
        self._watchers: dict[int, RunWatcher] = {}
        self._endings: list[threading.Thread] = []
        try:
            self.run_id = self._parent()
        except MlflowException as error:
            raise ValueError(
                f"MLflow does not take the sweep ({str(error).partition(chr(10))[0]}): correct tracking.uri or"
                " MLFLOW_TRACKING_URI, or set tracking.kind to off"
            ) from error

    def follow(self, number: int, config: FinetuneConfig) -> None:
        """Send a trial's metrics to its run from now on."""
        if number in self._watchers:  # its process was lost and started again
            return
        own = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": self.uri})})
        sink = tracker(own, {"mlflow.parentRunId": self.run_id})
        self._watchers[number] = RunWatcher(own, [sink]).start()

    def end(self, number: int, state: str, error: str) -> None:
        """End a trial's run; in the background, so that the other trials need not wait for MLflow."""
        watcher = self._watchers.pop(number, None)
        if watcher is None:
            return
        thread = threading.Thread(target=self._end, args=(watcher, number, state, error), name=f"end-{number}")
        thread.start()
        self._endings.append(thread)

    def catch_up(self, trials: Trials) -> None:
        """End the runs of trials that had ended when an earlier start was killed, before MLflow heard of it."""
        for trial in trials.known():
            if trial.ended and self._is_open(trial.number):
                self.follow(trial.number, trials.config_of(trial))
                self.end(trial.number, trial.state, trial.error)

    def interrupt(self) -> None:
        """Leave the books as they are after a sweep that did not come to its end; the next start goes on with them."""
        self._wait()
        self._tried(lambda: self._client.set_terminated(self.run_id, "KILLED"), "the end of the sweep")

    def finish(self, best: Outcome, summary: Mapping[str, Any], folder: Path, artifacts: Sequence[Path]) -> None:
        """Tag the best trial, upload the results, register its model, and end the parent run.

        Args:
            best: the best trial.
            summary: of the sweep; its figures of the best model become the parent's metrics.
            folder: holds the best model's files.
            artifacts: files of the whole sweep.
        """
        self._wait()
        self._tried(lambda: self._write_results(best, summary, folder, artifacts), "the results of the sweep")

    def _parent(self) -> str:
        experiment = experiment_of(
            self._client, self._config.tracking.experiment, Path(self._config.run.storage).absolute(), self.uri
        )
        known = self._folder.path / RUN_ID_NAME
        if known.exists() and is_alive(self._client, known.read_text()):
            self._client.update_run(known.read_text(), status="RUNNING")
            return known.read_text()
        run = self._client.create_run(
            experiment, run_name=self._config.run.name, tags={"rung.sweep": str(self._folder.path)}
        )
        values = flatten(redacted_values(self._config.model_dump(mode="json", exclude={"tracking"})))
        params = [Param(name, value) for name, value in values.items()]
        self._client.log_batch(run.info.run_id, params=params)
        self._folder.write(RUN_ID_NAME, run.info.run_id)
        return run.info.run_id

    def _end(self, watcher: RunWatcher, number: int, state: str, error: str) -> None:
        watcher.close(completed=state == "finished")
        run_id = self._child(number)
        if run_id is None:
            return

        def write() -> None:
            self._client.set_tag(run_id, "rung.state", state)
            if error:
                self._client.set_tag(run_id, "rung.error", error[:_MAX_TAG])
            self._client.set_terminated(run_id, _STATUS[state])

        self._tried(write, f"the end of trial {number}")

    def _write_results(
        self, best: Outcome, summary: Mapping[str, Any], folder: Path, artifacts: Sequence[Path]
    ) -> None:
        for path in artifacts:
            self._client.log_artifact(self.run_id, str(path))
        self._client.log_artifacts(self.run_id, str(folder), "best")
        for name, value in summary["best"]["test"].items():
            self._client.log_metric(self.run_id, f"best/test/{name}", value)
        self._client.set_tag(self.run_id, "rung.best_trial", str(best.trial.number))
        child = self._child(best.trial.number)
        if child is not None:
            self._client.set_tag(child, "rung.best", "true")
        if self._config.sweep.registered_model is not None:
            self._register(self._config.sweep.registered_model, Path(summary["best"]["run"]), folder)
        self._client.set_terminated(self.run_id, "FINISHED")

    def _register(self, name: str, run: Path, folder: Path) -> None:
        """Publish the best model for this parent run; it becomes the champion unless the present one is better."""
        exported = json.loads((folder / SUMMARY_NAME).read_text())
        publication = Publication(Path(exported["model"]), run, tuple(exported["physics"]))
        registry = RegistryConfig(model=name, data=self._config.data.path)
        version = publish(publication, registry, self.uri, self.run_id)
        try:
            promote(publication, registry, self.uri, version)
        except PromotionError as error:
            logger.warning("%s", error)

    def _is_open(self, number: int) -> bool:
        child = self._child(number)
        return child is None or self._client.get_run(child).info.status == "RUNNING"

    def _child(self, number: int) -> str | None:
        path = self._folder.path / "trials" / trial_name(number) / RUN_ID_NAME
        return path.read_text() if path.exists() else None

    def _wait(self) -> None:
        for thread in self._endings:
            thread.join()
        for watcher in self._watchers.values():
            watcher.close(completed=False)
        self._endings.clear()
        self._watchers.clear()

    def _tried(self, write: Callable[[], None], what: str) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001 (whatever a tracker raises, the sweep's own files are complete)
            logger.warning("MLflow at %s did not take %s: %s", redacted(self.uri), what, str(error).partition("\n")[0])
