"""Paths of a config made absolute where the user typed them: Ray's workers run in other folders."""

from pathlib import Path
from typing import TypeVar

from rung.config.tree import TrainConfig
from rung.data.staging import is_url

AnyTrainConfig = TypeVar("AnyTrainConfig", bound=TrainConfig)

_UPLOADED_FOLDER = "_ray_pkg_"
"""Ray unpacks a submitted working_dir into a folder of this prefix, and deletes it when the job is over."""


def resolve_paths(config: AnyTrainConfig) -> AnyTrainConfig:
    """The same config with absolute `run.storage`, `data.path` and, where it is a path, `model.init`.

    Raises:
        ValueError: the run would be stored in the temporary folder of a submitted job.
    """
    storage = _absolute(config.run.storage)
    if any(part.startswith(_UPLOADED_FOLDER) for part in storage.parts):
        raise ValueError(
            f"run.storage {config.run.storage!r} would lie in {storage}, this job's copy of the working directory,"
            " which Ray deletes after the job: give run.storage as an absolute path on storage that every node reaches"
        )
    init = _absolute(config.model.init)
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"storage": str(storage)}),
            "data": config.data.model_copy(update={"path": _absolute_or_url(config.data.path)}),
            "model": config.model.model_copy(update={"init": str(init)}) if init.exists() else config.model,
        }
    )


def _absolute_or_url(path: str) -> str:
    return path if is_url(path) else str(_absolute(path))


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
