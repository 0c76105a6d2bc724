"""How evenly the partition spreads the work of a step over ranks, against batches of equal numbers drawn at random.

    python -m tests.benchmarks.balance --json figures.json

Sizes are drawn as in MPtrj: atoms log-normal with median 22 and mean 31, at most 444. Bonds and angles per atom are
those of a real cell drawn at random (see `tests.benchmarks.cells`), which keeps them correlated. The imbalance of a
step is the predicted time of the slowest rank over the mean of all; figures are means over an epoch.
"""

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rung.config.preparation import GraphConfig
from rung.data.graph import build_graph
from rung.data.partition import epoch_order, imbalance, num_steps, predicted_cost, split_by_cost, step_bounds
from tests.benchmarks.cells import cells, mptrj_like_atoms
from tests.benchmarks.figures import Figures, run

_STRUCTURES_PER_RANK = 40
_NUM_RECORDS = 100_000


def mptrj_like_sizes(rng: np.random.Generator) -> tuple[NDArray, NDArray, NDArray, str]:
    """Draw atoms, bonds and angles of each record, each (n,) int; returns also where the densities come from."""
    atoms = mptrj_like_atoms(rng, _NUM_RECORDS)
    structures, origin = cells()
    graphs = [build_graph(np.array(cell.lattice.matrix), cell.frac_coords, GraphConfig()) for cell in structures]
    sizes = np.array([(len(cell), g.num_bonds, g.num_angles) for cell, g in zip(structures, graphs, strict=True)])
    like = sizes[rng.integers(0, len(sizes), _NUM_RECORDS)]
    return atoms, atoms * like[:, 1] // like[:, 0], atoms * like[:, 2] // like[:, 0], origin


def balanced(costs: NDArray[np.float64], true_costs: NDArray[np.float64], world_size: int) -> tuple[float, int, float]:
    """Split every step of an epoch by `costs` while the work takes `true_costs`.

    Returns:
        mean imbalance, records not visited exactly once, and median ms to split a step.
    """
    visits = np.zeros(_NUM_RECORDS, dtype=np.int64)
    found, times = [], []
    for ids in batches(world_size):
        start = time.perf_counter()
        parts = split_by_cost(costs[ids], world_size)
        times.append(time.perf_counter() - start)
        found.append(imbalance(true_costs[ids], parts))
        for part in parts:
            np.add.at(visits, ids[part], 1)
    return float(np.mean(found)), int((visits != 1).sum()), 1e3 * float(np.median(times))


def at_random(costs: NDArray[np.float64], world_size: int) -> float:
    """Mean imbalance of the same batches dealt out in equal numbers."""
    equal = (imbalance(costs, np.array_split(ids, world_size)) for ids in batches(world_size))
    return float(np.mean(list(equal)))


def batches(world_size: int) -> Iterator[NDArray[np.int64]]:
    """Records of each step of an epoch."""
    order = epoch_order(_NUM_RECORDS, seed=0, epoch=0)
    steps = num_steps(_NUM_RECORDS, _STRUCTURES_PER_RANK * world_size)
    for step in range(steps):
        start, end = step_bounds(_NUM_RECORDS, steps, step)
        yield order[start:end]


def measure() -> Figures:
    """Figures for 8, 32 and 256 ranks."""
    atoms, bonds, angles, origin = mptrj_like_sizes(np.random.default_rng(0))
    costs = predicted_cost(atoms, bonds, angles)
    dearer_angles = predicted_cost(atoms, bonds, 2 * angles)
    figures: Figures = {}
    dropped = 0
    for world_size in (8, 32, 256):
        figures[f"imbalance_{world_size}"], missed, milliseconds = balanced(costs, costs, world_size)
        figures[f"imbalance_{world_size}_at_random"] = at_random(costs, world_size)
        figures[f"imbalance_{world_size}_if_angles_cost_double"] = balanced(costs, dearer_angles, world_size)[0]
        figures[f"split_ms_{world_size}"] = milliseconds
        dropped += missed
    return figures | {
        "dropped": dropped,
        "structures_per_rank": _STRUCTURES_PER_RANK,
        "records": _NUM_RECORDS,
        "atoms_median": int(np.median(atoms)),
        "atoms_mean": float(atoms.mean()),
        "bonds_per_atom_mean": float(bonds.sum() / atoms.sum()),
        "angles_per_atom_mean": float(angles.sum() / atoms.sum()),
        "densities": origin,
    }


if __name__ == "__main__":
    run(measure, __doc__)
