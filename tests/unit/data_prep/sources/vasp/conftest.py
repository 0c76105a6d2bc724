"""Runs of VASP in folders."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.sources.base import ParsedFrame, Rejection
from data_prep.sources.vasp.tree import open_vasp
from rung.config.preparation import SourceConfig
from tests.unit.data_prep.reading import good, read_all

PACK = {".gz": gzip.compress, ".bz2": bz2.compress}


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file below tmp_path/runs, compressed as its name says."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PACK.get(path.suffix, bytes)(text.encode()))
        return path

    return make


@pytest.fixture
def outcomes(tmp_path: Path) -> Callable[..., list[ParsedFrame | Rejection]]:
    """Read all runs below a folder, tmp_path/runs unless another is given."""

    def read(path: Path | None = None, **settings: object) -> list[ParsedFrame | Rejection]:
        config = SourceConfig.model_validate({"kind": "vasp", "path": str(path or tmp_path / "runs")} | settings)
        return read_all(open_vasp(config, "test"))

    return read


@pytest.fixture
def records(outcomes):
    """Read all runs, which have to be good."""

    def read(*args, **settings):
        return [frame.record for frame in good(outcomes(*args, **settings))]

    return read
