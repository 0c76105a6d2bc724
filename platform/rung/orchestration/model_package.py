"""An exported model as a folder that MLflow loads and serves anywhere: code, weights, requirements, example."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlflow.pyfunc
from pymatgen.core import Lattice, Structure

_CODE: Final = Path(__file__).with_name("served_model.py")
_PACKAGES: Final = ("mlflow", "torch", "chgnet", "pymatgen", "ase", "numpy")


def save_package(model_file: Path, folder: Path, metadata: dict[str, Any]) -> Path:
    """Write the folder.

    Args:
        model_file: an exported model, by custom `*.pth.tar`.
        folder: to make; must not exist.
        metadata: plain values, kept in MLmodel.

    Returns:
        the folder.
    """
    with _silenced():
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(_CODE),
            artifacts={"weights": str(model_file)},
            pip_requirements=requirements(),
            input_example=[example()],
            metadata=metadata,
        )
    return folder


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep back what MLflow and chgnet say of each model: bars, warnings of what is meant so, sizes."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        yield


def requirements() -> list[str]:
    """The packages that a saved model needs, in the versions that it was tried with; Rung is none of them."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in _PACKAGES]


def example() -> dict[str, Any]:
    """Rock salt, as pymatgen writes it."""
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return cell.get_primitive_structure().as_dict()
