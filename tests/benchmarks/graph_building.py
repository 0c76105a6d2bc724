"""Building crystal graphs, against chgnet's converter, on the same cells and one core.

    python -m tests.benchmarks.graph_building --json figures.json

Both sides take all cells in turn, several times; a ratio is that of the sums of each cell's best time. chgnet's graph
lists the angles, rung derives them when it collates a batch: its time is that of the graph plus its share of collating
batches of 40. The cells as they are (`ratio_vs_chgnet`) are small; `ratio_vs_chgnet_mptrj_sizes` is for supercells of
them with as many atoms as MPtrj's structures.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from chgnet.graph import CrystalGraph as ChgnetGraph
from chgnet.graph import CrystalGraphConverter
from numpy.typing import NDArray
from pymatgen.core import Structure

from rung.config.preparation import GraphConfig
from rung.data.batch import collate
from rung.data.graph import build_graph, graph_record, line_graph
from rung.data.record import GraphRecord, StructureRecord
from tests.benchmarks.cells import cells, sized_like_mptrj
from tests.benchmarks.figures import Figures, run

_CUTOFFS = GraphConfig()
_BATCH, _PASSES = 40, 4


@dataclass(frozen=True)
class Comparison:
    """Best seconds of each cell on both sides, and whether the graphs are the same."""

    chgnet: NDArray[np.float64]
    building: NDArray[np.float64]
    collating: float
    records: list[GraphRecord]
    same_edges: bool
    same_angles: bool

    @property
    def ratio(self) -> float:
        """How many times longer chgnet takes for everything."""
        return self.chgnet.sum() / (self.building.sum() + self.collating)


def compare(structures: Sequence[Structure]) -> Comparison:
    """Build the graphs of all cells on both sides."""
    convert = CrystalGraphConverter(atom_graph_cutoff=_CUTOFFS.atom_cutoff, bond_graph_cutoff=_CUTOFFS.bond_cutoff)
    records = [graph_record(_unlabelled(cell), _CUTOFFS) for cell in structures]
    inputs = [(record.lattice, record.frac_coords) for record in records]
    wrapped = [
        Structure(cell.lattice, cell.species, record.frac_coords)
        for cell, record in zip(structures, records, strict=True)
    ]
    batches = [records[start : start + _BATCH] for start in range(0, len(records), _BATCH)]
    pairs = [(record, convert(cell)) for record, cell in zip(records, wrapped, strict=True)]
    return Comparison(
        chgnet=best_seconds_each(convert, [(cell,) for cell in wrapped]),
        building=best_seconds_each(lambda *cell: build_graph(*cell, _CUTOFFS), inputs),
        collating=best_seconds_each(collate, [(batch,) for batch in batches]).sum(),
        records=records,
        same_edges=all(same_edges(*pair) for pair in pairs),
        same_angles=all(same_angles(*pair) for pair in pairs),
    )


def best_seconds_each(work: Callable[..., object], arguments: Sequence[tuple]) -> NDArray[np.float64]:
    """Best time of each call over several passes through all of them: (len(arguments),) s."""
    times = np.empty((_PASSES, len(arguments)))
    for row in times:
        for position, each in enumerate(arguments):
            start = time.perf_counter()
            work(*each)
            row[position] = time.perf_counter() - start
    return times.min(axis=0)


def same_edges(record: GraphRecord, graph: ChgnetGraph) -> bool:
    """Whether both have the same multiset of directed edges."""
    bonds = np.concatenate([record.bond_atoms, record.bond_image], axis=1, dtype=int)
    ours = np.concatenate([bonds, np.concatenate([bonds[:, 1::-1], -bonds[:, 2:]], axis=1)])
    theirs = np.concatenate([graph.atom_graph.numpy(), graph.neighbor_image.numpy()], axis=1).astype(int)
    return Counter(map(tuple, ours.tolist())) == Counter(map(tuple, theirs.tolist()))


def same_angles(record: GraphRecord, graph: ChgnetGraph) -> bool:
    """Whether both have the same number of angles at every atom."""
    short = record.bond_atoms[: record.num_short_bonds]
    ours = np.bincount(line_graph(short[:, 0], short[:, 1]).centre, minlength=record.num_atoms)
    theirs = np.bincount(graph.bond_graph.reshape(-1, 5)[:, 0].numpy(), minlength=record.num_atoms)
    return bool((ours == theirs).all())


def _unlabelled(cell: Structure) -> StructureRecord:
    return StructureRecord(
        atomic_numbers=np.array(cell.atomic_numbers),
        lattice=cell.lattice.matrix,
        frac_coords=cell.frac_coords,
        source="benchmark",
        material_id="m",
        frame_id="0",
        functional="GGA",
    )


def measure() -> Figures:
    """Compare results and times."""
    torch.set_num_threads(1)
    structures, origin = cells()
    plain, sized = compare(structures), compare(sized_like_mptrj(structures, 100))
    return {
        "ratio_vs_chgnet": plain.ratio,
        "ratio_vs_chgnet_mptrj_sizes": sized.ratio,
        "same_edges": plain.same_edges and sized.same_edges,
        "same_angles": plain.same_angles and sized.same_angles,
        "median_ms": 1e3 * float(np.median(plain.building)),
        "median_ms_chgnet": 1e3 * float(np.median(plain.chgnet)),
        "median_ms_mptrj_sizes": 1e3 * float(np.median(sized.building)),
        "median_ms_chgnet_mptrj_sizes": 1e3 * float(np.median(sized.chgnet)),
        "collate_ms_per_structure_mptrj_sizes": 1e3 * sized.collating / len(sized.records),
        "cells": len(structures),
        "atoms_mean": float(np.mean([record.num_atoms for record in plain.records])),
        "atoms_mean_mptrj_sizes": float(np.mean([record.num_atoms for record in sized.records])),
        "origin": origin,
    }


if __name__ == "__main__":
    run(measure, __doc__)
