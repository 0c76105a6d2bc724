"""The config of the model registry: under which name a model is published, and what a champion has to beat."""

from typing import Literal

from rung.config.section import Section, setting

ComparedError = Literal["energy_mae", "force_mae", "stress_mae", "magmom_mae"]


class RegistryConfig(Section):
    """MLflow's model registry."""

    model: str | None = setting(
        None, "name under which MLflow registers the model; not registered if absent", min_length=1
    )
    alias: Literal["candidate", "champion"] = setting(
        "candidate",
        "candidate: the newest; champion: the one to use, given only if it is no worse than the present one",
    )
    uri: str | None = setting(
        None, "MLflow server or database; MLFLOW_TRACKING_URI or mlflow.db beside the run's folder if absent"
    )
    data: str | None = setting(
        None, "prepared data on whose test materials both models are compared; the run's own if absent", min_length=1
    )
    errors: tuple[ComparedError, ...] = setting(
        ("energy_mae", "force_mae"), "errors that must not be larger than the champion's", min_length=1
    )
    tolerance: float = setting(0.0, "share by which they may be larger all the same", unit="fraction", ge=0)
    data_license: str | None = setting(
        None, "licence of the training data, as its publisher states it; for the model card", min_length=1
    )
