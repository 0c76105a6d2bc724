"""How the cost of a training step grows with the batch and with the cell, over two decades each.

    python -m tests.benchmarks.linear_cost --json figures.json

Batches of 1 to 100 copies of one Materials Project frame, and cells of 1 to 100 copies of it as one crystal; CHGNet
0.3.0, energy, forces, stress and magmoms. A line, a fixed time of a step and a time of each atom, is fitted to
seconds against atoms by relative least squares; its largest error says whether the growth is linear. The exponent of
a power law tells how much the fixed time matters. On a CPU the seconds are process time, on one thread. The picture
lies beside the figures.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from pymatgen.core import Structure

from rung.data.record import StructureRecord
from tests.benchmarks import train_step
from tests.benchmarks.cells import cells
from tests.benchmarks.figures import Figures, parsed, step_parser, write
from tests.benchmarks.train_step import rung_side, step, targets_of

_COPIES = (1, 2, 4, 8, 16, 32, 64, 100)
_CELLS = ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (4, 2, 2), (4, 4, 2), (4, 4, 4), (5, 5, 4))
_ATOMS = 8


def measure(repeats: int, device: str, picture: Path | None) -> Figures:
    """Time both series, and draw them."""
    found, origin = cells()
    unit = next(cell for cell in found if len(cell) == _ATOMS)
    series = {
        "batch": [[record_of(unit)] * copies for copies in _COPIES],
        "cell": [[record_of(unit * scaling)] for scaling in _CELLS],
    }
    figures: Figures = {"cells": origin, "formula": unit.formula, "device": device}
    times = {}
    for name, batches in series.items():
        atoms = [sum(record.num_atoms for record in batch) for batch in batches]
        times[name] = atoms, [seconds_of(batch, repeats, device) for batch in batches]
        figures |= _growth(name, *times[name])
    if picture is not None:
        _draw(times, picture)
    return figures


def _growth(name: str, atoms: list[int], seconds: list[float]) -> Figures:
    sizes, measured = np.array(atoms, dtype=float), np.array(seconds)
    line = np.stack([np.ones_like(sizes), sizes], axis=1)
    (fixed, per_atom), *_ = np.linalg.lstsq(line / measured[:, None], np.ones_like(sizes))
    upper = [at for at, number in enumerate(atoms) if number >= max(atoms) / 20]
    return {
        f"{name}_atoms_smallest": min(atoms),
        f"{name}_atoms_largest": max(atoms),
        f"{name}_seconds_smallest": seconds[0],
        f"{name}_seconds_largest": seconds[-1],
        f"{name}_seconds_fixed": float(fixed),
        f"{name}_seconds_per_atom": float(per_atom),
        f"{name}_largest_error_of_the_line": float(np.abs((fixed + per_atom * sizes) / measured - 1).max()),
        f"{name}_exponent": float(np.polyfit(np.log(atoms), np.log(seconds), 1)[0]),
        f"{name}_exponent_of_the_upper_part": float(
            np.polyfit(np.log([atoms[at] for at in upper]), np.log([seconds[at] for at in upper]), 1)[0]
        ),
    }


def record_of(cell: Structure) -> StructureRecord:
    """Give a cell every label; their values do not matter here."""
    rng = np.random.default_rng(len(cell))
    return StructureRecord(
        atomic_numbers=np.array(cell.atomic_numbers, dtype=np.uint8),
        lattice=cell.lattice.matrix,
        frac_coords=cell.frac_coords,
        energy=-5.0 * len(cell),
        forces=rng.normal(size=(len(cell), 3)),
        stress=rng.normal(size=(3, 3)),
        magmoms=rng.random(len(cell)),
        source="benchmark",
        material_id="m",
        frame_id="f",
        functional="GGA",
    )


def seconds_of(batch: list[StructureRecord], repeats: int, device: str) -> float:
    """Seconds of one training step on a batch, the fastest of `repeats`."""
    side, targets = rung_side(batch, device), targets_of(batch, device)
    step(side, targets)
    return min(train_step.seconds(side, targets, device) for _ in range(repeats))


def _draw(times: dict[str, tuple[list[int], list[float]]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    labels = {"batch": "batch of equal cells", "cell": "one cell"}
    for (name, (atoms, seconds)), marker in zip(times.items(), "os", strict=True):
        axes.loglog(atoms, seconds, marker=marker, label=labels[name])
    atoms, seconds = times["batch"]
    axes.loglog(atoms, [seconds[-1] * number / atoms[-1] for number in atoms], "k:", label="linear")
    axes.set_xlabel("atoms in the step")
    axes.set_ylabel("seconds per training step")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    options = parsed(step_parser(__doc__, repeats=3))
    drawn = options.json.with_suffix(".png") if options.json else None
    write(measure(options.repeats, options.device, drawn), options.json)
