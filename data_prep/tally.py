"""What a data set holds, counted over its columns: records, reasons, splits, elements, label statistics, references."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from data_prep.decide import Decision
from data_prep.facts import MEASURES, NO_REASON, FactsTable
from rung.config.preparation import SplitConfig
from rung.data.fields import Labels
from rung.data.index import SPLITS, Index
from rung.data.reference import NUM_ELEMENTS, fit_reference

_ROWS_AT_ONCE: Final = 65_536


def tally(
    index: Index, facts: FactsTable, decision: Decision, rejected: Mapping[str, int], split: SplitConfig
) -> dict[str, Any]:
    """The manifest's sections that are counts; all but `counts` speak of the records that are used.

    Args:
        index: of the stored records.
        facts: of the stored records.
        decision: about the stored records.
        rejected: frames that are not used, by reason.
        split: how the records were split.
    """
    kept = np.flatnonzero(decision.reason == NO_REASON)
    return {
        "counts": {
            "read": len(kept) + sum(rejected.values()),
            "stored": len(index),
            "kept": len(kept),
            "rejected": dict(sorted(rejected.items())),
        },
        "split": {**split.model_dump(), **_split_counts(index, decision, kept)},
        "functionals": _counts(index.functional[kept]),
        "elements": records_with_elements(index, kept),
        "labels": _label_statistics(index, facts, kept) | {"energy_keys": _energy_keys(facts, kept)},
        "references": _references(index, decision),
    }


def _split_counts(index: Index, decision: Decision, kept: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    splits = decision.split[kept]
    materials = index.material_id[kept]
    return {
        "records": {name: int((splits == i).sum()) for i, name in enumerate(SPLITS)},
        "materials": {name: len(np.unique(materials[splits == i])) for i, name in enumerate(SPLITS)},
    }


def _counts(names: NDArray[np.bytes_]) -> dict[str, int]:
    values, counts = np.unique(names, return_counts=True)
    return {value.decode(): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


def _energy_keys(facts: FactsTable, kept: NDArray[np.int64]) -> dict[str, int]:
    return {key: count for key, count in _counts(facts.energy_key[kept]).items() if key}


def records_with_elements(index: Index, rows: NDArray[np.int64]) -> dict[str, int]:
    """How many of some records contain each element; elements in none are left out."""
    records_with = np.zeros(NUM_ELEMENTS, dtype=np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        records_with += (index.compositions(rows[start : start + _ROWS_AT_ONCE]) > 0).sum(axis=0)
    return {Element.from_Z(z + 1).symbol: int(records_with[z]) for z in np.flatnonzero(records_with).tolist()}


def _label_statistics(index: Index, facts: FactsTable, kept: NDArray[np.int64]) -> dict[str, Any]:
    return {
        measure.label: {"measure": measure.meaning, "unit": measure.unit}
        | _statistics(index, kept, facts.measures[kept, column])
        for column, measure in enumerate(MEASURES)
    }


def _statistics(index: Index, kept: NDArray[np.int64], values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, spread and extremes with the names of the extreme records; without numbers, their count alone."""
    there = np.flatnonzero(np.isfinite(values))
    if len(there) == 0:
        return {"records": 0}
    numbers = values[there]
    smallest, largest = int(there[np.argmin(numbers)]), int(there[np.argmax(numbers)])
    names = index.record_names(kept[[smallest, largest]])
    return {
        "records": len(there),
        "mean": float(numbers.mean()),
        "std": float(numbers.std()),
        "min": float(values[smallest]),
        "min_record": names[0],
        "max": float(values[largest]),
        "max_record": names[1],
    }


def _references(index: Index, decision: Decision) -> dict[str, Any]:
    """Elemental references of each functional, fitted to its training records."""
    training = (decision.split == SPLITS.index("train")) & (index.labels & Labels.ENERGY > 0)
    fits = {}
    for functional in np.unique(index.functional[training]).tolist():
        rows = np.flatnonzero(training & (index.functional == functional))
        fits[functional.decode()] = fit_reference(index.compositions(rows), index.energy[rows]).to_json()
    return fits
