"""Who computes what: pure functions of sizes, seed, epoch, step and world size.

The records of a step are a function of (seed, epoch, step) alone. Only their split over ranks depends on the number of
ranks, so a run can be resumed on another number and still sees the same batches in the same order.
"""

import heapq
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Fitted to training steps of CHGNet 0.3.0 (energy, forces, stress, moments) on 40 batches on one core, right to 8 %.
# Only the ratios matter: after the step had become four times as fast, they still fitted as well as new ones would, to
# 2 % in the median beside a fixed time of each step (tests/benchmarks/cost_model.py). They do not matter much: were
# angles twice as dear, the slowest of 256 ranks would take 14 % longer than the mean; with equal numbers of structures
# it takes twice as long (tests/benchmarks/balance.py).
COST_PER_ATOM: Final = 4.2
COST_PER_BOND: Final = 1.45
COST_PER_ANGLE: Final = 1.0


def num_steps(num_records: int, batch_structures: int) -> int:
    """Number of steps of an epoch: the fewest batches of at most `batch_structures`, none of them left out."""
    return -(-num_records // batch_structures)


def epoch_order(num_records: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order in which an epoch visits the records: a permutation of 0 to num_records - 1."""
    return np.random.default_rng((seed, epoch)).permutation(num_records)


def step_bounds(num_records: int, steps: int, step: int) -> tuple[int, int]:
    """Part of the epoch's order that a step takes. Sizes differ by one record at most; every record has its step."""
    return num_records * step // steps, num_records * (step + 1) // steps


def predicted_cost(
    num_atoms: NDArray[np.integer], num_bonds: NDArray[np.integer], num_angles: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Time to train on each structure (n,), in units of one angle."""
    return COST_PER_ATOM * num_atoms + COST_PER_BOND * num_bonds + COST_PER_ANGLE * num_angles


def split_by_cost(costs: NDArray[np.floating], num_parts: int) -> list[NDArray[np.int64]]:
    """Split items over parts so that the largest sum of costs is small.

    The most expensive item left goes to the part with the least so far (longest processing time first; Graham, SIAM J.
    Appl. Math. 17, 416 (1969)); ties go to the first. Parts may differ in size, and stay empty if there are fewer items
    than parts.

    Args:
        costs: (n,) cost of each item.
        num_parts: number of parts.

    Returns:
        positions of the items of each part, ascending.
    """
    loads = [(0.0, part) for part in range(num_parts)]
    members: list[list[int]] = [[] for _ in range(num_parts)]
    cost_of = costs.tolist()
    for item in np.argsort(-costs, kind="stable").tolist():
        load, part = loads[0]
        members[part].append(item)
        heapq.heapreplace(loads, (load + cost_of[item], part))
    return [np.array(sorted(items), dtype=np.int64) for items in members]


def pack(
    num_bonds: NDArray[np.integer], num_angles: NDArray[np.integer], max_bonds: int, max_angles: int
) -> list[NDArray[np.int64]]:
    """Group structures into batches that stay within both budgets; one above a budget gets a batch of its own.

    From the largest structure down (next-fit decreasing), so that a batch holds structures of similar size and the
    largest comes first: what does not fit in memory shows at once.

    Args:
        num_bonds: (n,) of each structure.
        num_angles: (n,) of each structure.
        max_bonds: bonds in one batch.
        max_angles: angles in one batch.

    Returns:
        positions of the structures of each batch.
    """
    fill = np.maximum(num_bonds / max_bonds, num_angles / max_angles)
    bonds_of, angles_of = num_bonds.tolist(), num_angles.tolist()
    batches: list[list[int]] = []
    bonds_left = angles_left = -1
    for item in np.argsort(-fill, kind="stable").tolist():
        bonds, angles = bonds_of[item], angles_of[item]
        if bonds > bonds_left or angles > angles_left:
            batches.append([])
            bonds_left, angles_left = max_bonds, max_angles
        batches[-1].append(item)
        bonds_left -= bonds
        angles_left -= angles
    return [np.array(batch) for batch in batches]


def imbalance(costs: NDArray[np.floating], parts: list[NDArray[np.int64]]) -> float:
    """Sum of the costs (n,) of the most expensive part over the mean of all parts: 1 is perfect."""
    sums = np.array([costs[part].sum() for part in parts])
    return float(sums.max() / sums.mean())
