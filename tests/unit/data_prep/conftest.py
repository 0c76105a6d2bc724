"""Small raw data sets in the formats that users bring, whole or spoilt."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rung.config.tree import PrepareConfig

Frame = dict[str, Any]


@pytest.fixture
def structure() -> Callable[..., Frame]:
    """Make pymatgen's JSON of a rocksalt-like cell of two atoms."""

    def make(symbols: tuple[str, str] = ("Na", "Cl"), edge: float = 4.0, shift: float = 0.0) -> Frame:
        coords = ([0.0, 0.0, 0.0], [0.5 + shift, 0.5, 0.5])
        return {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": 0,
            "lattice": {"matrix": [[edge, 0.0, 0.0], [0.0, edge, 0.0], [0.0, 0.0, edge]], "pbc": [True, True, True]},
            "sites": [
                {"species": [{"element": symbol, "occu": 1}], "abc": abc, "properties": {}, "label": symbol}
                for symbol, abc in zip(symbols, coords, strict=True)
            ],
        }

    return make


@pytest.fixture
def mptrj_frame(structure: Callable[..., Frame]) -> Callable[..., Frame]:
    """Make a complete MPtrj frame; keyword arguments replace its values."""

    def make(**replaced: Any) -> Frame:
        frame = {
            "structure": structure(),
            "uncorrected_total_energy": -6.0,
            "corrected_total_energy": -8.0,
            "energy_per_atom": -4.0,
            "ef_per_atom": -1.0,
            "e_per_atom_relaxed": -4.0,
            "ef_per_atom_relaxed": -1.0,
            "force": [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]],
            "stress": [[10.0, 1.0, 2.0], [1.0, 20.0, 3.0], [2.0, 3.0, 30.0]],
            "magmom": [-1.5, 0.5],
            "bandgap": 5.0,
            "mp_id": "mp-1",
        }
        return frame | replaced

    return make


@pytest.fixture
def matpes_record(structure: Callable[..., Frame]) -> Callable[..., Frame]:
    """Make a complete MatPES record; keyword arguments replace its values."""

    def make(**replaced: Any) -> Frame:
        crystal = structure()
        for site, moment in zip(crystal["sites"], (-1.5, 0.5), strict=True):
            site["properties"] = {"magmom": moment}
        record = {
            "nsites": 2,
            "composition": {"Na": 1.0, "Cl": 1.0},
            "structure": crystal,
            "energy": -8.0,
            "forces": [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]],
            "stress": [10.0, 20.0, 30.0, 4.0, 5.0, 6.0],
            "matpes_id": "matpes-20240214_1_2",
            "functional": "PBE",
            "provenance": {"original_mp_id": "mp-22862"},
        }
        return record | replaced

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write content (text, or anything that JSON takes) to a file, plain or gzip."""

    def make(content: Any, name: str = "raw.json", *, compress: bool = False) -> Path:
        text = content if isinstance(content, str) else json.dumps(content)
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
        return path

    return make


@pytest.fixture
def config_for(tmp_path: Path) -> Callable[..., PrepareConfig]:
    """Make the config that prepares a raw file into tmp_path/out; keyword arguments replace sections."""

    def make(path: Path, kind: str = "mptrj", source: dict[str, Any] | None = None, **sections: Any) -> PrepareConfig:
        settings = {"kind": kind, "path": str(path), "dataset": "test"} | (source or {})
        return PrepareConfig.model_validate({"output": str(tmp_path / "out"), "source": settings} | sections)

    return make


@pytest.fixture
def raw(mptrj_frame, structure, write):
    """A file with 12 materials of 2 good frames each, and one frame for each of some reasons."""
    content = {
        f"mp-{m}": {
            f"mp-{m}-0-{f}": mptrj_frame(
                structure=structure(edge=4.0 + 0.01 * m, shift=0.01 * f), magmom=[1.0, -2.0] if m % 2 else None
            )
            for f in range(2)
        }
        for m in range(12)
    }
    content["mp-3"]["isolated"] = mptrj_frame(structure=structure(edge=30.0))
    content["mp-4"]["overlap"] = mptrj_frame(structure=structure(shift=-0.5))
    content["mp-4"]["overlap"]["structure"]["sites"][1]["abc"] = [0.001, 0, 0]
    content["mp-5"]["nan"] = mptrj_frame(force=[[float("nan")] * 3] * 2)
    no_labels = ("uncorrected_total_energy", "corrected_total_energy", "energy_per_atom", "force", "stress", "magmom")
    content["mp-6"]["bare"] = mptrj_frame(**dict.fromkeys(no_labels))
    return write(content)
