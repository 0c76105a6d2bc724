"""Models in MLflow's registry: published from their runs, and promoted only when they win.

A version is known by the hash of its weights, so publishing the same model again finds it. Speaks through a client
alone, for the reason that `rung.orchestration.mlflow_run` gives.
"""

import logging
import tempfile
from pathlib import Path
from typing import Final

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from rung.config.registry import RegistryConfig
from rung.config.sections import BatchConfig, DataConfig
from rung.config.tree import EvaluateConfig, ExportConfig
from rung.evaluation.card import RunRecord
from rung.evaluation.evaluate import evaluate_model
from rung.evaluation.export import ExportSummary, export_model
from rung.orchestration.mlflow_run import RUN_ID_NAME, client_of, experiment_of, is_alive
from rung.orchestration.mlflow_sink import resolve_uri
from rung.orchestration.model_log import HASH_TAG, Publication, log_model
from rung.orchestration.paths import require_writable
from rung.training.metrics import Metrics

logger = logging.getLogger(__name__)

CANDIDATE: Final = "candidate"
CHAMPION: Final = "champion"
_LONGEST_DESCRIPTION: Final = 5000  # characters that MLflow's database takes
_UNKNOWN: Final = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE))


class PromotionError(ValueError):
    """A model that is not better than the champion."""


class RegistryError(ValueError):
    """MLflow does not take the model."""


def export_and_register(config: ExportConfig) -> ExportSummary:
    """Export a run's model, and publish it where `registry.model` asks for it.

    Raises:
        PhysicsError: the model breaks a law; nothing is published.
        PromotionError: the champion is better; the model is published as a candidate.
        RegistryError: MLflow does not take the model; the exported file is complete.
        ValueError: what `export_model` and `promote` raise.
    """
    require_writable("output", Path(config.output).parent)
    summary = export_model(config)
    if config.registry.model is not None:
        run = Path(config.run).absolute()
        uri = resolve_uri(config.registry.uri, str(run.parent))
        model = Path(summary.model).absolute()
        publication = Publication(model, run, tuple(summary.physics), config.registry.data_license)
        try:
            version = publish(publication, config.registry, uri)
            if config.registry.alias == CHAMPION:
                promote(publication, config.registry, uri, version)
        except MlflowException as error:
            raise RegistryError(
                f"MLflow does not take the model ({str(error).partition(chr(10))[0]}): correct registry.uri or"
                " MLFLOW_TRACKING_URI; the exported file is complete"
            ) from error
    return summary


def publish(publication: Publication, registry: RegistryConfig, uri: str, run_id: str | None = None) -> ModelVersion:
    """Register a model as the candidate, with its card, signature, input example and requirements.

    Args:
        publication: the model.
        registry: holds its name.
        uri: of MLflow.
        run_id: MLflow run that it belongs to; that of its training run if absent.

    Returns:
        its version; the one that it has already where it was published before.

    Raises:
        ValueError: the run is not complete.
        MlflowException: MLflow does not take the model.
    """
    name = registry.model
    assert name is not None  # noqa: S101 - callers ask for a registration
    client, record = client_of(uri), RunRecord.read(publication.run)
    digest = publication.digest
    _create_registered_model(client, name)
    known = [one for one in client.search_model_versions(f"name='{name}'") if one.tags.get(HASH_TAG) == digest]
    if known:
        version = known[0]
    else:
        run_id = run_id or _run_of(client, publication.run, record, uri)
        model, card = log_model(client, publication, run_id, name)
        # By its location, since a models:/ address would be looked up in MLflow's global tracking address.
        version = client.create_model_version(
            name,
            model.artifact_location,
            run_id=run_id,
            tags=model.tags,
            description=card[:_LONGEST_DESCRIPTION],
            model_id=model.model_id,
        )
        logger.info("MLflow: registered %s, version %s, from %s", name, version.version, publication.run)
    client.set_registered_model_alias(name, CANDIDATE, version.version)
    return version


def promote(publication: Publication, registry: RegistryConfig, uri: str, version: ModelVersion) -> None:
    """Make a version the champion, unless the present one is better on the same test materials.

    Both models are evaluated here and now, so figures of different test sets are never compared.

    Raises:
        PromotionError: names every error that is larger than the champion's.
        ValueError: the test materials have no labels for one of registry.errors, or a model cannot be evaluated.
        MlflowException: MLflow does not answer, or refuses.
    """
    client, name = client_of(uri), version.name
    champion = _version_by_alias(client, name, CHAMPION)
    if champion is not None and champion.version == version.version:
        return
    if champion is not None:
        ours, theirs = _compared(client, publication, registry, uri, champion)
        for error, value in ours.items():
            client.set_model_version_tag(name, version.version, f"rung.test.{error}", f"{value:.6g}")
        lost = _lost(ours, theirs, registry)
        if lost:
            raise PromotionError(
                f"{name} version {version.version} stays a candidate, since the champion, version {champion.version},"
                f" is better: {'; '.join(lost)} (registry.errors, registry.tolerance)"
            )
    client.set_registered_model_alias(name, CHAMPION, version.version)
    logger.info("MLflow: %s version %s is the champion", name, version.version)


def _compared(
    client: MlflowClient, publication: Publication, registry: RegistryConfig, uri: str, champion: ModelVersion
) -> tuple[Metrics, Metrics]:
    """Errors of the new model and of the champion on the same test materials."""
    config = RunRecord.read(publication.run).config
    data = DataConfig(path=registry.data or config["data"]["path"])
    with tempfile.TemporaryDirectory(prefix="rung-champion-") as folder:
        source = client.get_model_version_download_uri(champion.name, champion.version)
        path = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=uri)
        (file,) = Path(path).rglob("*.pth.tar")
        return tuple(
            evaluate_model(
                EvaluateConfig(model=str(model), output=f"{folder}/{title}", data=data, batch=BatchConfig())
            ).errors
            for title, model in (("new", publication.model), ("champion", file))
        )  # pyright: ignore[reportReturnType] -- two of them


def _lost(ours: Metrics, theirs: Metrics, registry: RegistryConfig) -> list[str]:
    missing = [error for error in registry.errors if error not in ours]
    if missing:
        raise ValueError(
            f"the test materials have no labels for {', '.join(missing)}: change registry.errors, or set registry.data"
        )
    return [
        f"{error} {ours[error]:.6g}, champion {theirs[error]:.6g}"
        for error in registry.errors
        if not ours[error] <= (1 + registry.tolerance) * theirs[error]
    ]


def _run_of(client: MlflowClient, folder: Path, record: RunRecord, uri: str) -> str:
    """MLflow's run of a training run; one is made for a run that was not tracked there."""
    known = folder / RUN_ID_NAME
    if known.exists() and is_alive(client, known.read_text()):
        return known.read_text()
    experiment = experiment_of(client, record.config["tracking"]["experiment"], folder.parent, uri)
    run = client.create_run(experiment, run_name=folder.name, tags={"rung.run": str(folder)})
    client.set_terminated(run.info.run_id)
    return run.info.run_id


def _create_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _version_by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in _UNKNOWN:
            return None
        raise
