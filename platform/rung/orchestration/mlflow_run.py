"""One MLflow run per training run, found again by every start of it.

Speaks through a client alone: the fluent API keeps global state and writes it to the environment, which Ray's workers
inherit.
"""

import getpass
import json
import logging
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode

from rung.config.secrets import redacted_values
from rung.orchestration.model_log import Publication, log_model
from rung.orchestration.provenance import source_state
from rung.training.elements import ELEMENTS_NAME
from rung.training.hardware import hardware_text
from rung.training.run import MODEL_NAME, SOURCE_NAME, RunFolder
from rung.training.sinks import INCIDENTS_NAME, RunDescription

logger = logging.getLogger(__name__)

RUN_ID_NAME = "mlflow_run_id"
"""File in the run's folder; whoever deletes the folder to start afresh gets a fresh MLflow run too."""

MAX_METRICS = 1000
"""Metrics that MLflow takes in one call."""

_ORIGIN_NAME = ".mlflow_origin"
_ORIGIN_TAG = "rung.origin"
_MAX_PARAMS = 100
_LONGEST_TAG = 5000  # characters
_MORE_ARTIFACTS = (ELEMENTS_NAME, SOURCE_NAME, INCIDENTS_NAME, "physics.json")

_RETRIES = 3
"""Of one request, unless the user has set MLflow's own variable. MLflow's seven take four minutes, during which nobody
is told, and a server that comes back is not noticed."""


class TrackedRun:
    """A run in MLflow's books, open for metrics.

    Raises:
        MlflowException: MLflow does not answer, or refuses; every method may.
    """

    def __init__(self, client: MlflowClient, run_id: str, description: RunDescription) -> None:
        self._client = client
        self._description = description
        self.run_id = run_id
        run = client.get_run(run_id)
        self._status = run.info.status
        self._last_steps = {name: _last_step(client, run_id, name) for name in run.data.metrics}

    @classmethod
    def open(cls, description: RunDescription, uri: str, tags: Mapping[str, str] | None = None) -> Self:
        """Find the MLflow run of a training run, or create it with its parameters, tags (and `tags`) and manifest."""
        client = client_of(uri)
        folder = RunFolder(description.folder)
        experiment_id = experiment_of(client, description.config.tracking.experiment, description.folder.parent, uri)
        known = folder.path / RUN_ID_NAME
        if known.exists() and is_alive(client, known.read_text()):
            return cls(client, known.read_text(), description)
        run_id = (
            _created(client, experiment_id, folder)
            or client.create_run(
                experiment_id,
                run_name=description.config.run.name,
                tags={**_tags(description), _ORIGIN_TAG: _origin(folder), **(tags or {})},
            ).info.run_id
        )
        params = [Param(name, value) for name, value in parameters(description).items()]
        for first in range(0, len(params), _MAX_PARAMS):
            client.log_batch(run_id, params=params[first : first + _MAX_PARAMS])
        client.log_dict(run_id, redacted_values(dict(description.manifest)), "manifest.json")
        environment = {"versions": dict(description.versions), "hardware": list(description.hardware)}
        client.log_dict(run_id, environment | {"source": source_state()}, "environment.json")
        folder.write(RUN_ID_NAME, run_id)
        (folder.path / _ORIGIN_NAME).unlink(missing_ok=True)
        return cls(client, run_id, description)

    def log(self, metrics: Sequence[Metric]) -> None:
        """Write metrics, one value a step: a resumed run does some steps a second time, and its file is read again."""
        missing = (metric for metric in metrics if metric.step > self._last_steps.get(metric.key, -1))
        new = list({(metric.key, metric.step): metric for metric in missing}.values())
        if not new:
            return
        if self._status != "RUNNING":
            self._set_status("RUNNING")
        for first in range(0, len(new), MAX_METRICS):
            batch = new[first : first + MAX_METRICS]
            self._client.log_batch(self.run_id, metrics=batch)
            for metric in batch:
                self._last_steps[metric.key] = max(metric.step, self._last_steps.get(metric.key, -1))

    def finish(self, artifacts: Sequence[Path]) -> None:
        """Upload the artifacts, the checkpoint and the model that the config wants, and mark the run as finished."""
        if self._status == "FINISHED":
            return
        folder = self._description.folder
        for path in [*artifacts, *(folder / name for name in _MORE_ARTIFACTS if (folder / name).exists())]:
            self._client.log_artifact(self.run_id, str(path))
        self._log_elements(folder / ELEMENTS_NAME)
        self._log_checkpoint()
        self._log_model(folder)
        self._set_status("FINISHED")

    def _log_elements(self, path: Path) -> None:
        """Errors by element as metrics of the last step."""
        if path.exists():
            now, step = int(time.time() * 1000), self._description.total_steps
            self.log(
                [
                    Metric(f"{split}/element/{name}.{element}", value, now, step)  # one group of charts, not one each
                    for split, elements in json.loads(path.read_text()).items()
                    for element, errors in elements.items()
                    for name, value in errors.items()
                ]
            )

    def _log_checkpoint(self) -> None:
        which, store = self._description.config.tracking.checkpoints, RunFolder(self._description.folder).checkpoints()
        if which != "none" and (steps := store.steps()):
            step = store.best_step() if which == "best" else None
            self._client.log_artifacts(self.run_id, str(store.path(step or steps[-1])), f"checkpoint-{which}")

    def _log_model(self, folder: Path) -> None:
        """Log the model once; of a sweep's trials, the best one is logged by the sweep."""
        run = self._client.get_run(self.run_id)
        wanted = self._description.config.tracking.model and "mlflow.parentRunId" not in run.data.tags
        logged = run.outputs.model_outputs if run.outputs else []
        if not wanted or logged or not (folder / MODEL_NAME).exists():
            return
        try:
            log_model(self._client, Publication(folder / MODEL_NAME, folder), self.run_id, folder.name)
        except (ValueError, OSError) as error:  # the run is complete without it, and its model file is there
            logger.warning("MLflow: %s has no model in the form that MLflow loads: %s", folder, error)

    def abort(self) -> None:
        """Mark the run as failed; the next start opens it again."""
        if self._status == "RUNNING":
            self._set_status("FAILED")

    def _set_status(self, status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status)
        self._status = status


def _origin(folder: RunFolder) -> str:
    """Name for the attempts to create a run, never used before and kept until one of them has succeeded."""
    path = folder.path / _ORIGIN_NAME
    return (path if path.exists() else folder.write(_ORIGIN_NAME, secrets.token_hex(16))).read_text()


def _created(client: MlflowClient, experiment_id: str, folder: RunFolder) -> str | None:
    """The run that an earlier attempt created without hearing of it: the server was gone before it answered."""
    if not (folder.path / _ORIGIN_NAME).exists():
        return None
    found = client.search_runs([experiment_id], f"tags.`{_ORIGIN_TAG}` = '{_origin(folder)}'", max_results=1)
    return found[0].info.run_id if found else None


def parameters(description: RunDescription) -> dict[str, str]:
    """The config as dotted keys, and the model's size, as MLflow's text values.

    Without `tracking`, whose address may hold a password.
    """
    flat = flatten(redacted_values(description.config.model_dump(mode="json", exclude={"tracking"})))
    return {**flat, "num_parameters": str(description.num_parameters)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys, and values as text."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _tags(description: RunDescription) -> dict[str, str]:
    versions = {f"rung.version.{name}": version for name, version in description.versions.items()}
    source = source_state()
    found = {
        "rung.run": str(description.folder),
        "rung.manifest_hash": description.manifest_hash,
        "rung.hardware": hardware_text(description.hardware)[:_LONGEST_TAG],
        "mlflow.user": _user(),
        "mlflow.source.name": sys.argv[0],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": source.get("commit", ""),
        "rung.source_changed": source.get("changed", ""),
        **versions,
    }
    return {name: value for name, value in found.items() if value}


def _user() -> str:
    """Who started the run; containers may have an account without a name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def client_of(uri: str) -> MlflowClient:
    """A client that keeps quiet, and says within half a minute that a server does not answer."""
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # tells of each attempt; the last one is raised
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.default = _RETRIES
    return MlflowClient(tracking_uri=uri)


def experiment_of(client: MlflowClient, name: str, storage: Path, uri: str) -> str:
    """Id of the experiment, which is made if it is not there.

    Args:
        client: of the server or database.
        name: of the experiment.
        storage: folder of the runs; a database without a server keeps its artifacts there.
        uri: of the server or database.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    folder = storage / "mlartifacts" / name
    try:
        return client.create_experiment(name, artifact_location=None if uri.startswith("http") else folder.as_uri())
    except MlflowException as error:
        found = client.get_experiment_by_name(name)
        if found is None or error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return found.experiment_id  # another run was quicker


def is_alive(client: MlflowClient, run_id: str) -> bool:
    """Whether MLflow knows the run, and nobody deleted it."""
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return False
        raise


def _last_step(client: MlflowClient, run_id: str, name: str) -> int:
    return max(metric.step for metric in client.get_metric_history(run_id, name))
