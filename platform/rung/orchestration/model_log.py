"""A run's model in MLflow: with signature, input example, requirements and card, as MLflow loads and serves it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput

from rung.evaluation.card import CARD_NAME, RunRecord, model_card
from rung.model.weights import load, weights_hash
from rung.orchestration.model_package import save_package

HASH_TAG: Final = "rung.weights_sha256"


@dataclass(frozen=True)
class Publication:
    """A model to log or to publish.

    Attributes:
        model: the model's file.
        run: the folder of the run that it comes from.
        physics: the laws that it was tried on, as `Check.to_json`; empty if it was not.
        data_license: licence of the training data, as its publisher states it.
    """

    model: Path
    run: Path
    physics: tuple[Mapping[str, Any], ...] = ()
    data_license: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the weights: what tells whether two models are the same."""
        return weights_hash(load(self.model))


def log_model(client: MlflowClient, publication: Publication, run_id: str, name: str) -> tuple[LoggedModel, str]:
    """Log a model to a run, and the card as a file of the run.

    Args:
        client: of the server or database.
        publication: the model.
        run_id: MLflow's run.
        name: title of the card.

    Returns:
        MLflow's model, and the card.

    Raises:
        ValueError: the run is not complete, or its model cannot be loaded.
        MlflowException: MLflow does not answer, or refuses.
    """
    record = RunRecord.read(publication.run)
    card = model_card(name, record, publication.physics, publication.data_license)
    tags = tags_of(publication, record)
    metadata = {"rung": {key.removeprefix("rung."): value for key, value in tags.items()}}
    with tempfile.TemporaryDirectory(prefix="rung-model-") as temporary:
        folder = save_package(publication.model, Path(temporary) / "model", metadata)
        (folder / CARD_NAME).write_text(card)
        experiment = client.get_run(run_id).info.experiment_id
        model = client.create_logged_model(
            experiment, name="chgnet", source_run_id=run_id, tags=tags, model_type="chgnet"
        )
        client.log_model_artifacts(model.model_id, str(folder))
        client.log_artifact(run_id, str(folder / CARD_NAME))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, record.summary["best_step"])])
    return model, card


def tags_of(publication: Publication, record: RunRecord) -> dict[str, str]:
    """What a model is searched by: run, data, functional, errors on the test materials."""
    found = {
        HASH_TAG: publication.digest,
        "rung.run": str(record.summary["run"]),
        "rung.step": str(record.summary["best_step"]),
        "rung.manifest_hash": str(record.description.get("manifest_hash", "")),
        "rung.functional": ",".join(record.functionals),
        "rung.reference": str(record.reference["mode"]),
        "rung.physics": "passed" if publication.physics else "not tried",
    }
    errors = record.summary["best"].get("test", {})
    found |= {f"rung.test.{name}": f"{value:.6g}" for name, value in errors.items() if name != "loss"}
    return {name: value for name, value in found.items() if value}
