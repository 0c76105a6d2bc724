"""Task documents of the Materials Project."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def task(structure: Callable[..., dict]) -> Callable[..., dict]:
    """Make a task document of one calculation with two ionic steps; keyword arguments replace its keys."""

    def step(energy: float) -> dict[str, Any]:
        return {
            "structure": structure(),
            "e_fr_energy": energy,
            "e_wo_entrp": energy + 0.02,
            "e_0_energy": energy + 0.01,
            "forces": [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]],
            "stress": [[10.0, 1.0, 2.0], [1.0, 20.0, 3.0], [2.0, 3.0, 30.0]],
            "electronic_steps": [{}] * 5,
        }

    def make(**replaced: Any) -> dict[str, Any]:
        magnetization = [{"s": 0.0, "tot": -1.5}, {"s": 0.0, "tot": 0.5}]
        calculation = {
            "output": {"ionic_steps": [step(-8.0), step(-8.5)], "outcar": {"magnetization": magnetization}},
            "input": {"incar": {"NELM": 60, "IBRION": 2, "NSW": 99}, "hubbards": {}},
        }
        return {
            "task_id": "mp-149",
            "task_type": "Structure Optimization",
            "run_type": "GGA",
            "calcs_reversed": [calculation],
            "input": {"is_hubbard": False},
        } | replaced

    return make


@pytest.fixture
def entry(structure: Callable[..., dict]) -> Callable[..., dict]:
    """Make a ComputedStructureEntry; keyword arguments replace its keys."""

    def make(**replaced: Any) -> dict[str, Any]:
        return {
            "structure": structure(),
            "energy": -8.0,
            "correction": -0.7,
            "entry_id": "mp-5",
            "parameters": {"run_type": "GGA", "hubbards": {}},
            "data": {"task_id": "mp-7", "material_id": "mp-6"},
        } | replaced

    return make
