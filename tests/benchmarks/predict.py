"""Batch prediction against chgnet's predict_structure, on the same structures and one core, in turns.

    python -m tests.benchmarks.predict --json figures.json

Rung's side is what `jobs/predict.py` does, whole: it reads the structures from an extended XYZ file, builds graphs,
predicts energy, forces, stress and magnetic moments, and writes a Parquet file. chgnet's side has the structures in
memory and keeps its predictions there; its batch size is its default. Both are called once before, on other structures,
so that neither is charged for compilation.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from rung.config.inference import PredictConfig
from rung.model.weights import load
from rung.orchestration.predict import run_prediction
from tests.benchmarks.cells import cells, sized_like_mptrj
from tests.benchmarks.figures import Figures, run

_STRUCTURES, _TURNS = 160, 3


def measure() -> Figures:
    """Compare predictions and times."""
    torch.set_num_threads(1)
    drawn, origin = cells()
    structures = sized_like_mptrj(drawn, _STRUCTURES)
    model = load("0.3.0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _predict(structures[:8], folder / "warm")
        model.predict_structure(structures[:8])
        path = _written(structures, folder)
        ours, theirs, predictions = [], [], []
        for turn in range(_TURNS):
            ours.append(_seconds(lambda turn=turn: _job(path, folder / str(turn))))
            theirs.append(_seconds(lambda: predictions.append(model.predict_structure(structures))))
        table = pq.read_table(folder / "0" / "predictions.parquet").to_pydict()
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    atoms = [len(cell) for cell in structures]
    return {
        "ratio_vs_chgnet": float(np.median([ratio[0] for ratio in ratios])),
        "ratio_vs_chgnet_process_time": float(np.median([ratio[1] for ratio in ratios])),
        "structures_per_second": _STRUCTURES / min(our[0] for our in ours),
        "structures_per_second_chgnet": _STRUCTURES / min(their[0] for their in theirs),
        "energy_difference_ev_per_atom": _largest(table["energy_per_atom"], [each["e"] for each in predictions[0]]),
        "force_difference_ev_per_angstrom": _largest(table["forces"], [each["f"] for each in predictions[0]]),
        "structures": _STRUCTURES,
        "atoms_mean": float(np.mean(atoms)),
        "load_average": os.getloadavg()[0],
        "origin": origin,
    }


def _predict(structures: list[Structure], folder: Path) -> None:
    folder.mkdir()
    _job(_written(structures, folder), folder / "out")


def _written(structures: list[Structure], folder: Path) -> Path:
    path = folder / "structures.extxyz"
    ase.io.write(path, [AseAtomsAdaptor.get_atoms(cell, msonable=False) for cell in structures], format="extxyz")
    return path


def _job(path: Path, output: Path) -> None:
    run_prediction(PredictConfig(model="0.3.0", input=str(path), output=str(output)))


def _seconds(work: Callable[[], object]) -> NDArray[np.float64]:
    """Wall time and process time, s."""
    wall, process = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - process])


def _largest(ours: list, theirs: list) -> float:
    return max(float(np.abs(np.array(a) - np.array(b)).max()) for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    run(measure, __doc__)
