"""Building the crystal graph, against chgnet's converter, on the same cells and one core.

    python -m tests.benchmarks.graph_building --json figures.json

Each side takes all cells in turn; the ratio is that of the total times, each the best of several passes. Rung's time
includes the angles, which it derives and does not store.
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import numpy as np
import torch
from chgnet.graph import CrystalGraphConverter
from numpy.typing import NDArray
from pymatgen.core import Structure

from rung.config.sections import GraphConfig
from rung.data.graph import Angles, CrystalGraph, build_graph, line_graph
from tests.benchmarks.cells import cells
from tests.benchmarks.figures import Figures, run

_CUTOFFS = GraphConfig()
_TYPICAL = range(16, 65)  # atoms; MPtrj has a median of 22 and a mean of 31


@dataclass(frozen=True)
class Built:
    """Graph and angles as rung makes them."""

    graph: CrystalGraph
    angles: Angles


def build(lattice: NDArray[np.float64], frac_coords: NDArray[np.float64]) -> Built:
    """Rung's side: bonds and angles."""
    graph = build_graph(lattice, frac_coords, _CUTOFFS)
    short = graph.bond_atoms[: graph.num_short_bonds]
    return Built(graph, line_graph(short[:, 0], short[:, 1]))


def best_times(works: list[Callable[[], object]], passes: int) -> NDArray[np.float64]:
    """Best time of each piece of work over several passes through all of them: (len(works),) s."""
    times = np.empty((passes, len(works)))
    for row in times:
        for position, work in enumerate(works):
            start = time.perf_counter()
            work()
            row[position] = time.perf_counter() - start
    return times.min(axis=0)


def same_edges(built: Built, graph: object) -> bool:
    """Whether both have the same multiset of directed edges."""
    bonds = np.concatenate([built.graph.bond_atoms, built.graph.bond_image], axis=1, dtype=int)
    ours = np.concatenate([bonds, np.concatenate([bonds[:, 1::-1], -bonds[:, 2:]], axis=1)])
    theirs = np.concatenate([graph.atom_graph.numpy(), graph.neighbor_image.numpy()], axis=1).astype(int)
    return Counter(map(tuple, ours.tolist())) == Counter(map(tuple, theirs.tolist()))


def same_angles(built: Built, graph: object) -> bool:
    """Whether both have the same number of angles at every atom."""
    ours = np.bincount(built.angles.centre, minlength=len(graph.atomic_number))
    theirs = np.bincount(graph.bond_graph.reshape(-1, 5)[:, 0].numpy(), minlength=len(graph.atomic_number))
    return bool((ours == theirs).all())


def measure() -> Figures:
    """Compare results and times."""
    torch.set_num_threads(1)
    structures, origin = cells()
    convert = CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3)
    graphs = [convert(cell) for cell in structures]
    inputs = [(np.array(cell.lattice.matrix), cell.frac_coords) for cell in structures]
    built = [build(*each) for each in inputs]

    def work_of(cell: Structure) -> Callable[[], object]:
        return lambda: convert(cell)

    chgnet = best_times([work_of(cell) for cell in structures], passes=2)
    rung = best_times([lambda each=each: build(*each) for each in inputs], passes=5)
    bonds_only = best_times([lambda each=each: build_graph(*each, _CUTOFFS) for each in inputs], passes=5)
    typical = np.array([len(cell) in _TYPICAL for cell in structures])
    pairs = list(zip(built, graphs, strict=True))
    return {
        "ratio_vs_chgnet": chgnet.sum() / rung.sum(),
        "ratio_vs_chgnet_16_to_64_atoms": chgnet[typical].sum() / rung[typical].sum(),
        "ratio_vs_chgnet_bonds_only": chgnet.sum() / bonds_only.sum(),
        "same_edges": all(same_edges(*pair) for pair in pairs),
        "same_angles": all(same_angles(*pair) for pair in pairs),
        "median_ms": 1e3 * statistics.median(rung),
        "median_ms_chgnet": 1e3 * statistics.median(chgnet),
        "total_s": rung.sum(),
        "total_s_chgnet": chgnet.sum(),
        "cells": len(structures),
        "atoms": sum(map(len, structures)),
        "bonds": sum(each.graph.num_bonds for each in built),
        "angles": sum(each.graph.num_angles for each in built),
        "origin": origin,
    }


if __name__ == "__main__":
    run(measure, __doc__)
