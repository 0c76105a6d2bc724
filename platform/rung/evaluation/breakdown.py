"""Where a model's errors are: by element, size, force, magnetism and functional, and the worst records.

Errors are named and measured as in `rung.training.metrics`.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from rung.data.dataset import ShardDataset
from rung.data.formula import reduced_formula
from rung.evaluation.comparison import PER_ATOM, Comparison
from rung.training.metrics import Metrics

SIZES: Final = (1, 5, 9, 17, 33, 65, 129)
"""Fewest atoms of each group of sizes; the last one is open."""

FORCES: Final = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Least force on an atom of each group, eV/Å; the last one is open."""

MAGNETIC: Final = 0.1
"""Largest moment of a structure, in μB, from which it counts as magnetic."""

Group = dict[str, float]
"""`records` or `atoms` of a group, and its errors."""


def by_functional(comparison: Comparison, dataset: ShardDataset) -> dict[str, Metrics]:
    """Errors for each functional of the labels."""
    functionals = dataset.index.functional[comparison.record_ids]
    return {name.decode(): comparison.among(functionals == name).errors() for name in np.unique(functionals)}


def by_element(comparison: Comparison, dataset: ShardDataset) -> dict[str, Group]:
    """MAE for each element: energy and stress of the records that contain it, force and magmom of its atoms."""
    contained = dataset.compositions(comparison.record_ids) > 0
    found: dict[str, Group] = {}
    for place in np.flatnonzero(contained.any(axis=0)).tolist():
        group: Group = {"records": int(contained[:, place].sum())}
        for target, compared in comparison.targets.items():
            of_element = compared.atomic_numbers == place + 1 if target in PER_ATOM else contained[compared.row, place]
            if of_element.any():
                group[f"{target}_mae"] = float(np.abs(compared.error[of_element]).mean())
        found[Element.from_Z(place + 1).symbol] = group
    return found


def by_size(comparison: Comparison, dataset: ShardDataset) -> dict[str, Group]:
    """Errors for groups of numbers of atoms."""
    sizes = dataset.index.num_atoms[comparison.record_ids]
    return dict(_groups(comparison, {name: _within(sizes, *ends) for name, ends in _ranges(SIZES, whole=True)}))


def by_magnetism(comparison: Comparison) -> dict[str, Group]:
    """Errors for structures with and without a moment above `MAGNETIC`; those without such labels are left out."""
    if (moments := comparison.targets.get("magmom")) is None:
        return {}
    largest = np.full(len(comparison.record_ids), -1.0)
    np.maximum.at(largest, moments.row, moments.label)
    return dict(
        _groups(comparison, {"magnetic": largest > MAGNETIC, "not magnetic": (largest >= 0) & (largest <= MAGNETIC)})
    )


def by_force(comparison: Comparison) -> dict[str, Group]:
    """Errors of forces for groups of the force on the atom: of a component, and by length and angle of the vector.

    A length that is too short tells of a softened potential (Deng et al., npj Comput. Mater. 11, 9 (2025)).

    Returns:
        `atoms`, `force_mae`, `length_error` (eV/Å, prediction minus label) and `angle` (°), the last three as means.
    """
    if (forces := comparison.targets.get("force")) is None:
        return {}
    length = np.linalg.norm(forces.label, axis=1)
    found: dict[str, Group] = {}
    for name, ends in _ranges(FORCES, whole=False):
        chosen = forces.among(_within(length, *ends))
        if not len(chosen):
            continue
        lengths, predicted = (np.linalg.norm(each, axis=1) for each in (chosen.label, chosen.prediction))
        scale = lengths * predicted
        cosine = np.einsum("ij,ij->i", chosen.label, chosen.prediction)[scale > 0] / scale[scale > 0]
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        found[name] = {
            "atoms": len(chosen),
            "force_mae": float(np.abs(chosen.error).mean()),
            "length_error": float((predicted - lengths).mean()),
        } | ({"angle": float(angle.mean())} if angle.size else {})
    return found


def worst(comparison: Comparison, dataset: ShardDataset, target: str, number: int) -> list[dict[str, Any]]:
    """The records with the largest errors of a target, worst first: who they are, label, prediction, error.

    Label, prediction and error, signed, of forces, stress and moments are those of the worst component.

    Args:
        comparison: predictions and labels.
        dataset: the records' names.
        target: one that has labels.
        number: of records, at most.
    """
    compared = comparison.targets[target]
    error = np.abs(compared.error).reshape(len(compared), -1)
    largest = np.nan_to_num(error, nan=np.inf).max(axis=1)  # what is not a number is worst of all
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    for at in np.argsort(-largest, kind="stable").tolist():
        row = int(compared.row[at])
        if row in seen:
            continue
        seen.add(row)
        component = int(error[at].argmax())
        found.append(
            _identity(dataset, int(comparison.record_ids[row]))
            | {
                "label": float(compared.label[at].ravel()[component]),
                "prediction": float(compared.prediction[at].ravel()[component]),
                "error": float(compared.error[at].ravel()[component]),
            }
        )
        if len(found) == number:
            break
    return found


def formulas(dataset: ShardDataset, record_ids: NDArray[np.int64]) -> list[str]:
    """Reduced formula of each record."""
    found = dataset.compositions(record_ids)
    return [reduced_formula(np.flatnonzero(counts) + 1, counts[counts > 0]) for counts in found]


def _identity(dataset: ShardDataset, record_id: int) -> dict[str, Any]:
    index = dataset.index
    return {
        "record": dataset.record_names([record_id])[0],
        "formula": formulas(dataset, np.array([record_id]))[0],
        "functional": index.functional[record_id].decode(),
        "num_atoms": int(index.num_atoms[record_id]),
    }


def _groups(comparison: Comparison, masks: Mapping[str, NDArray[np.bool_]]) -> Iterator[tuple[str, Group]]:
    """Errors of each group that is not empty; masks (n,) over the records."""
    for name, chosen in masks.items():
        if chosen.any():
            yield name, {"records": int(chosen.sum())} | comparison.among(chosen).errors()


def _ranges(starts: tuple[float, ...], *, whole: bool) -> Iterator[tuple[str, tuple[float, float]]]:
    """Names and limits of groups, lower limit included; of whole numbers the names hold both ends."""
    for low, high in pairwise(starts):
        yield (f"{low} to {high - 1}" if whole else f"{low:g} to {high:g}"), (low, high)
    yield (f"{starts[-1]} or more" if whole else f"above {starts[-1]:g}"), (starts[-1], np.inf)


def _within(values: NDArray[Any], low: float, high: float) -> NDArray[np.bool_]:
    return (values >= low) & (values < high)
