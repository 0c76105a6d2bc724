"""One training step (energy, forces, stress, magmoms; loss; backward) of rung against chgnet's own, on the same cells.

    python -m tests.benchmarks.train_step --json figures.json

The cells are the Materials Project frames of RUNG_TEST_DATA (or ../shared/data), else perturbed oxides made here. Times
are the best of several steps, taken in turns, and the ratio is the median over the turns; on a CPU both sides use one
thread unless told otherwise, and one thread's time is the process's, which other work on the machine disturbs less.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from chgnet.graph import CrystalGraphConverter
from chgnet.model import CHGNet
from chgnet.trainer.trainer import CombinedLoss
from pymatgen.core import Lattice, Structure
from torch import Tensor

from rung.config.preparation import GraphConfig
from rung.data.batch import GraphBatch, collate
from rung.data.graph import graph_record
from rung.data.record import StructureRecord
from rung.model.chgnet import evaluate
from rung.model.weights import load
from rung.units import vasp_stress_to_gpa

_FRAMES = "derived-mptrj-format/mp_tasks_in_mptrj_format.json.gz"
_DATA = Path(os.environ.get("RUNG_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
_SIZES = (10, 12, 16, 18, 20, 24, 28, 36, 48, 56, 72)  # atoms; mean 31 and median 24, MPtrj's are 31 and 22


@dataclass(frozen=True)
class Side:
    """One implementation: its model, and a function that predicts energies, forces, stresses and magmoms."""

    model: CHGNet
    predict: Callable[[], dict[str, Tensor | list[Tensor]]]


def labelled_cells(number: int) -> tuple[list[StructureRecord], str]:
    """Return one frame of each of `number` materials, and where they come from."""
    path = _DATA / _FRAMES
    if not path.is_file():
        return [_oxide(seed) for seed in range(number)], "perturbed oxides"
    with gzip.open(path, "rt") as file:
        materials = json.load(file)
    frames = [next(iter(frames.values())) for frames in materials.values()]
    return [_cell(frames, _SIZES[index % len(_SIZES)], index) for index in range(number)], "Materials Project frames"


def _cell(frames: list[dict], size: int, index: int) -> StructureRecord:
    """Pick one of the frames that have `size` atoms once repeated up to four times along the first axis."""
    fitting = [frame for frame in frames if size in {len(frame["structure"]["sites"]) * n for n in range(1, 5)}]
    frame = fitting[index // len(_SIZES) % len(fitting)]
    cell = Structure.from_dict(frame["structure"])
    repeats = size // len(cell)
    cell.make_supercell([repeats, 1, 1])  # the copies of a site follow each other
    return _record(
        cell,
        energy=frame["energy_per_atom"] * len(cell),
        forces=np.repeat(frame["force"], repeats, axis=0),
        stress=vasp_stress_to_gpa(frame["stress"]),
        magmoms=None if frame["magmom"] is None else np.repeat(frame["magmom"], repeats),
    )


def _oxide(seed: int) -> StructureRecord:
    rng = np.random.default_rng(seed)
    cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.3), ["Mn", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    cell.make_supercell([[1, 2, 3][seed % 3], 2, 1])
    moved = cell.cart_coords + rng.normal(scale=0.06, size=(len(cell), 3))
    cell = Structure(cell.lattice, cell.species, moved, coords_are_cartesian=True)
    labels = {
        "forces": rng.normal(size=(len(cell), 3)),
        "stress": rng.normal(size=(3, 3)),
        "magmoms": rng.random(len(cell)),
    }
    return _record(cell, energy=-8.0 * len(cell), **labels)


def _record(cell: Structure, **labels) -> StructureRecord:
    return StructureRecord(
        atomic_numbers=np.array(cell.atomic_numbers, dtype=np.uint8),
        lattice=cell.lattice.matrix,
        frac_coords=cell.frac_coords,
        source="benchmark",
        material_id="m",
        frame_id="f",
        functional="GGA",
        **labels,
    )


def upstream_side(records: list[StructureRecord], device: str) -> Side:
    """Chgnet's own forward on its own graphs, which are made beforehand."""
    model = load("0.3.0").to(device)
    convert = CrystalGraphConverter()
    cells = [Structure(r.lattice, r.atomic_numbers, r.frac_coords) for r in records]
    graphs = [convert(cell).to(device) for cell in cells]
    return Side(model, lambda: model(graphs, task="efsm"))


def rung_side(records: list[StructureRecord], device: str) -> Side:
    """Rung's evaluation of one batch, which is made beforehand."""
    model = load("0.3.0").to(device)
    batch: GraphBatch = collate([graph_record(record, GraphConfig()) for record in records]).to(device)
    sizes = [record.num_atoms for record in records]

    def predict() -> dict[str, Tensor | list[Tensor]]:
        found = evaluate(model, batch, create_graph=True)
        return {
            "e": found.energy,
            "f": found.forces.split(sizes),
            "s": list(found.stress),
            "m": found.magmoms.split(sizes),
        }

    return Side(model, predict)


SIDES = {"chgnet": upstream_side, "rung": rung_side}


def targets_of(records: list[StructureRecord], device: str) -> dict[str, Tensor | list[Tensor | None]]:
    """Labels as chgnet's loss wants them."""

    def tensor(value: np.ndarray) -> Tensor:
        return torch.tensor(np.asarray(value), dtype=torch.float32, device=device)

    return {
        "e": tensor([record.energy / record.num_atoms for record in records]),
        "f": [tensor(record.forces) for record in records],
        "s": [tensor(record.stress) for record in records],
        "m": [None if record.magmoms is None else tensor(record.magmoms) for record in records],
    }


def step(side: Side, targets: dict) -> float:
    """Take one step up to the gradients, and return the loss."""
    side.model.zero_grad(set_to_none=True)
    loss = CombinedLoss(target_str="efsm", criterion="Huber")(targets, side.predict())["loss"]
    loss.backward()
    return loss.item()


def seconds(side: Side, targets: dict, device: str) -> float:
    """Time one step."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step(side, targets)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def peak_memory_mib(name: str, structures: int, device: str) -> float:
    """Peak memory of one step on top of model and batch, MiB; on a CPU measured in a process of its own."""
    if device == "cpu":
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.train_step",
            "--memory-of",
            name,
            "--structures",
            str(structures),
        ]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    records, _ = labelled_cells(structures)
    side, targets = SIDES[name](records, device), targets_of(records, device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(side, targets)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _resident_growth_mib(name: str, structures: int) -> float:
    records, _ = labelled_cells(structures)
    side, targets = SIDES[name](records, "cpu"), targets_of(records, "cpu")
    before = _status_mib("VmRSS")
    step(side, targets)
    return _status_mib("VmHWM") - before


def _status_mib(key: str) -> float:
    # Not getrusage: a child's ru_maxrss starts at its parent's size.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 2**10


def compare(structures: int, repeats: int, device: str) -> dict[str, float | int | str]:
    """Run both sides in turns and return the flat figures."""
    records, origin = labelled_cells(structures)
    targets = targets_of(records, device)
    sides = {name: make(records, device) for name, make in SIDES.items()}
    losses = {name: step(side, targets) for name, side in sides.items()}  # the first step also warms up
    gradients = {
        name: torch.cat([p.grad.flatten() for p in side.model.parameters() if p.grad is not None])
        for name, side in sides.items()
    }
    times = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            times[name].append(seconds(side, targets, device))
    best = {name: min(values) for name, values in times.items()}
    del sides
    memory = {name: peak_memory_mib(name, structures, device) for name in SIDES}
    difference = (gradients["rung"] - gradients["chgnet"]).norm() / gradients["chgnet"].norm()
    return {
        "ratio_vs_chgnet": statistics.median(a / b for a, b in zip(times["chgnet"], times["rung"], strict=True)),
        "memory_ratio_vs_chgnet": memory["chgnet"] / memory["rung"],
        "loss_difference": abs(losses["rung"] - losses["chgnet"]),
        "gradient_difference": difference.item(),
        "structures_per_second": structures / best["rung"],
        "seconds_per_step": best["rung"],
        "seconds_per_step_chgnet": best["chgnet"],
        "peak_memory_mib": memory["rung"],
        "peak_memory_mib_chgnet": memory["chgnet"],
        "structures": structures,
        "atoms": sum(record.num_atoms for record in records),
        "cells": origin,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Parse the command line, measure, and write or print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures, one flat object")
    parser.add_argument("--structures", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each side")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # Upstream's own, about how it computes volumes.
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
    if options.memory_of:
        print(_resident_growth_mib(options.memory_of, options.structures))
        return
    figures = compare(options.structures, options.repeats, options.device)
    text = json.dumps(figures, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
