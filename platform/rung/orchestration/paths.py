"""Paths of a config made absolute where the user typed them: Ray's workers run in other folders."""

import tempfile
from pathlib import Path
from typing import TypeVar

from rung.config.reference import IsolatedConfig
from rung.config.sections import NAMED_WEIGHTS, DataConfig
from rung.config.transfer import ReplayConfig
from rung.config.tree import TrainConfig
from rung.data.staging import is_url

AnyTrainConfig = TypeVar("AnyTrainConfig", bound=TrainConfig)
_WithPath = TypeVar("_WithPath", DataConfig, IsolatedConfig, ReplayConfig)

_UPLOADED_FOLDER = "_ray_pkg_"
"""Ray unpacks a submitted working_dir into a folder of this prefix, and deletes it when the job is over."""


class FolderError(ValueError):
    """A folder that cannot be made or written."""


def existing_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists (which may be a file)."""
    return next(each for each in (path, *path.parents) if each.exists())


def require_writable(key: str, path: Path | str) -> Path:
    """Try whether a folder can be written, or made; it is left as it is.

    Args:
        key: of the config that names the folder, for the message.
        path: of the folder.

    Returns:
        The folder, or the nearest one above it that exists.

    Raises:
        FolderError: says what is in the way.
    """
    folder = _absolute(str(path))
    there = existing_folder(folder)
    if not there.is_dir():
        raise FolderError(f"{folder} cannot be made, since {there} is a file: set {key} to another folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be written ({error.strerror} in {there}): set {key} to a folder that you may write"
        ) from error
    return there


def resolve_paths(config: AnyTrainConfig) -> AnyTrainConfig:
    """The same config with every path absolute: storage, data, replayed data, files of isolated atoms, and weights.

    Raises:
        ValueError: the run would be stored in the temporary folder of a submitted job.
    """
    storage = _absolute(config.run.storage)
    if any(part.startswith(_UPLOADED_FOLDER) for part in storage.parts):
        raise ValueError(
            f"run.storage {config.run.storage!r} would lie in {storage}, this job's copy of the working directory,"
            " which Ray deletes after the job: give run.storage as an absolute path on storage that every node reaches"
        )
    atoms = {name: getattr(config.reference, name) for name in ("isolated", "isolated_pretrained")}
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"storage": str(storage)}),
            "data": resolve_data(config.data),
            "model": config.model.model_copy(update={"init": resolve_weights(config.model.init)}),
            "reference": config.reference.model_copy(update={name: _resolved(each) for name, each in atoms.items()}),
            "replay": _resolved(config.replay),
        }
    )


def resolve_data(config: DataConfig) -> DataConfig:
    """The same data with an absolute path, unless it is a URL."""
    return _resolved(config)


def resolve_weights(init: str) -> str:
    """Absolute path of initial weights that are a file or folder, else the name that they have."""
    path = _absolute(init)
    return str(path) if path.exists() and init not in NAMED_WEIGHTS else init


def _resolved(section: _WithPath) -> _WithPath:
    path = section.path
    return section if path is None else section.model_copy(update={"path": _absolute_or_url(path)})


def _absolute_or_url(path: str) -> str:
    return path if is_url(path) else str(_absolute(path))


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
