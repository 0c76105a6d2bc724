"""Records of two data sets that are one and the same structure, so that their labels can be compared."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rung.config.progress import followed
from rung.data.dataset import ShardDataset
from rung.data.index import REJECTED
from rung.data.record import GraphRecord

_ROWS_AT_ONCE: Final = 2_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of records, row by row.

    Attributes:
        first: (n,) record ids in the first data set.
        second: (n,) record ids in the second.
        orders: for each pair, which atom of the second is each atom of the first, (num_atoms,).
        num_candidates: materials of both data sets that have records of the same composition.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    orders: list[NDArray[np.int64]]
    num_candidates: int

    def __len__(self) -> int:
        return len(self.first)


def find_pairs(first: ShardDataset, second: ShardDataset, tolerance: float) -> Pairs:
    """Pair records of the same material whose structures are identical; each record is used once.

    Args:
        first: a data set.
        second: another, prepared from records with the same material ids.
        tolerance: see `same_structure`, Å.
    """
    groups = [_by_material(dataset) for dataset in (first, second)]
    shared = sorted(groups[0].keys() & groups[1].keys())
    found: list[tuple[int, int, NDArray[np.int64]]] = []
    with followed("comparing structures", len(shared), "material") as advance:
        for start in range(0, len(shared), _ROWS_AT_ONCE):
            keys = shared[start : start + _ROWS_AT_ONCE]
            here, there = (
                _read(d, [i for key in keys for i in g[key]]) for d, g in zip((first, second), groups, strict=True)
            )
            for key in keys:
                found += _match([here[i] for i in groups[0][key]], [there[i] for i in groups[1][key]], tolerance)
            advance(len(keys))
    return Pairs(
        np.array([pair[0] for pair in found], dtype=np.int64),
        np.array([pair[1] for pair in found], dtype=np.int64),
        [pair[2] for pair in found],
        len({material for material, _ in shared}),
    )


def same_structure(first: GraphRecord, second: GraphRecord, tolerance: float) -> NDArray[np.int64] | None:
    """Which atom of `second` each atom of `first` is, (num_atoms,); None if the structures differ.

    Args:
        first: a structure.
        second: another.
        tolerance: how far components of lattice vectors, and atoms, may lie apart, Å.
    """
    if first.num_atoms != second.num_atoms or np.abs(first.lattice - second.lattice).max() > tolerance:
        return None
    steps = first.frac_coords[:, None] - second.frac_coords[None]
    apart = np.linalg.norm((steps - np.round(steps)) @ first.lattice, axis=2)
    apart[first.atomic_numbers[:, None] != second.atomic_numbers[None]] = np.inf
    order = apart.argmin(axis=1)
    whole = apart[np.arange(len(order)), order].max() <= tolerance and len(set(order.tolist())) == len(order)
    return order if whole else None


def _by_material(dataset: ShardDataset) -> dict[tuple[bytes, bytes], list[int]]:
    """Ids of the records that are in use, by material and composition."""
    groups: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    used = np.flatnonzero(dataset.index.split != REJECTED)
    compositions = dataset.compositions(used)
    for record_id, material, counts in zip(
        used.tolist(), dataset.index.material_id[used].tolist(), compositions, strict=True
    ):
        groups[material, counts.tobytes()].append(record_id)
    return groups


def _read(dataset: ShardDataset, ids: list[int]) -> dict[int, GraphRecord]:
    return dict(zip(ids, dataset.records.read(ids), strict=True))


def _match(
    here: list[GraphRecord], there: list[GraphRecord], tolerance: float
) -> list[tuple[int, int, NDArray[np.int64]]]:
    left = list(there)
    pairs = []
    for record in here:
        for place, candidate in enumerate(left):
            order = same_structure(record, candidate, tolerance)
            if order is not None:
                pairs.append((record.record_id, candidate.record_id, order))
                del left[place]
                break
    return pairs
