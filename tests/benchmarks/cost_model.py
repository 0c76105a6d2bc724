"""What an atom, a bond and an angle cost: the fit behind `rung.data.partition.predicted_cost`.

    python -m tests.benchmarks.cost_model --json figures.json

Training steps (energy, forces, stress, magmoms) of CHGNet 0.3.0 on batches of real cells, large and small, dense and
sparse (see `tests.benchmarks.cells`); relative least squares without negative costs, with a fixed time of each step. On
a CPU the seconds are process time, on one thread.
"""

import numpy as np
from pymatgen.core import Structure
from scipy.optimize import nnls

from rung.config.preparation import GraphConfig
from rung.data.graph import graph_record
from rung.data.partition import COST_PER_ANGLE, COST_PER_ATOM, COST_PER_BOND
from tests.benchmarks.cells import cells, sized_like_mptrj
from tests.benchmarks.figures import Figures, parsed, step_parser, write
from tests.benchmarks.linear_cost import record_of, seconds_of

_BATCHES, _PER_BATCH = 40, 6
_NAMES = ("atom", "bond", "angle")


def measure(repeats: int, device: str) -> Figures:
    """Time the batches and fit."""
    found, origin = cells()
    batches = [*_batches(found, seed=0), *_batches(sized_like_mptrj(found, 60), seed=1)]
    sizes = np.array([_sizes(batch) for batch in batches], dtype=float)
    seconds = np.array([seconds_of([record_of(cell) for cell in batch], repeats, device) for batch in batches])
    costs, error = _fit(sizes, seconds)
    present = sizes @ np.array([COST_PER_ATOM, COST_PER_BOND, COST_PER_ANGLE])
    (fixed, _), present_error = _fit(present[:, None], seconds)
    return {
        "milliseconds_fixed": 1e3 * float(costs[0]),
        "milliseconds_fixed_of_present_costs": 1e3 * float(fixed),
        **{f"microseconds_per_{name}": 1e6 * float(cost) for name, cost in zip(_NAMES, costs[1:], strict=True)},
        "relative_error_median": float(np.median(error)),
        "relative_error_largest": float(error.max()),
        "relative_error_median_of_present_costs": float(np.median(present_error)),
        "relative_error_largest_of_present_costs": float(present_error.max()),
        "batches": len(batches),
        "atoms_smallest": int(sizes[:, 0].min()),
        "atoms_largest": int(sizes[:, 0].max()),
        "cells": origin,
        "device": device,
    }


def _fit(sizes: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fixed time of a step and the times of what its sizes (n, k) count, and the relative error of each step (n,).

    Every rank has the same fixed time, so it does not matter for their balance.
    """
    columns = np.column_stack([np.ones(len(seconds)), sizes])
    costs, _ = nnls(columns / seconds[:, None], np.ones(len(seconds)))
    return costs, np.abs(columns @ costs / seconds - 1)


def _batches(found: list[Structure], seed: int) -> list[list[Structure]]:
    rng = np.random.default_rng(seed)
    order = np.argsort([len(cell) / cell.volume for cell in found])  # so that batches differ in density
    starts = rng.integers(0, len(found) - _PER_BATCH, _BATCHES // 2)
    return [[found[at] for at in order[start : start + _PER_BATCH]] for start in starts]


def _sizes(batch: list[Structure]) -> tuple[int, int, int]:
    graphs = [graph_record(record_of(cell), GraphConfig()) for cell in batch]
    return (
        sum(map(len, batch)),
        sum(graph.num_bonds for graph in graphs),
        sum(graph.num_angles for graph in graphs),
    )


if __name__ == "__main__":
    options = parsed(step_parser(__doc__, repeats=3))
    write(measure(options.repeats, options.device), options.json)
