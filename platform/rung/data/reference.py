"""Elemental reference energies as numbers: fitted to a data set, or from the tables that the chgnet package carries.

The reference is the part of the energy that composition alone explains. Every functional and every data set has its own
zero of energy, so a reference belongs to a data set (arXiv 2504.05565).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from rung.data.record import MAX_ATOMIC_NUMBER

NUM_ELEMENTS: Final = MAX_ATOMIC_NUMBER
"""H to Pu, the elements that CHGNet knows."""

BundledTable = Literal["MPtrj", "MP-r2SCAN"]

_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceFit:
    """A least-squares fit of energies by composition, and how far it can be trusted.

    Attributes:
        energies: (94,) reference energy of each element, eV/atom; 0 where an element was not seen.
        records_with: (94,) number of records that contain each element.
        num_records: records fitted.
        rank: number of elements, or combinations of elements, that the data tell apart.
        condition: largest over smallest singular value kept; large means that elements share their energy arbitrarily.
        mae_before: mean absolute energy that the reference should explain, eV/atom.
        mae_after: what is left of it, eV/atom.
        rmse_before: as root mean square, eV/atom.
        rmse_after: what is left of it, eV/atom.
    """

    energies: NDArray[np.float64]
    records_with: NDArray[np.int64]
    num_records: int
    rank: int
    condition: float
    mae_before: float
    mae_after: float
    rmse_before: float
    rmse_after: float

    @property
    def unseen(self) -> tuple[str, ...]:
        """Symbols of the elements that no record contains."""
        return _symbols(self.records_with == 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and lists; element energies and counts are keyed by symbol, unseen ones left out."""
        seen = np.flatnonzero(self.records_with).tolist()
        plain = asdict(self)
        plain["energies"] = {_symbol(index): float(self.energies[index]) for index in seen}
        plain["records_with"] = {_symbol(index): int(self.records_with[index]) for index in seen}
        plain["unseen"] = list(self.unseen)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read back what `to_json` returned."""
        energies, records_with = np.zeros(NUM_ELEMENTS), np.zeros(NUM_ELEMENTS, dtype=np.int64)
        for symbol, energy in plain["energies"].items():
            index = Element(symbol).Z - 1
            energies[index], records_with[index] = energy, plain["records_with"][symbol]
        rest = {key: plain[key] for key in plain if key not in ("energies", "records_with", "unseen")}
        return cls(energies=energies, records_with=records_with, **rest)


def fit_reference(
    compositions: NDArray[np.integer],
    energies: NDArray[np.floating],
    ridge: float = 0.0,
    weights: NDArray[np.floating] | None = None,
) -> ReferenceFit:
    """Fit one energy per element to total energies, by least squares on the energy per atom.

    Elements that never vary apart (only AB compounds of A and B) share their energy in the way of least norm.

    Args:
        compositions: (num_records, 94) number of atoms of each element.
        energies: (num_records,) total energies, eV.
        ridge: added to each squared singular value of the atomic fractions, dimensionless; 0 is the plain fit.
        weights: (num_records,) of each squared residual; all the same if None.

    Raises:
        ValueError: shapes that do not match, an empty cell, energies that are not finite, or nothing to fit.
    """
    _check(compositions, energies)
    scales = np.ones(len(energies)) if weights is None else np.sqrt(weights)
    triangle, records_with = _reduce(compositions, energies, scales)
    left, singular, right = np.linalg.svd(triangle[:, :-1])
    rank = int((singular > singular[0] * max(compositions.shape) * np.finfo(np.float64).eps).sum())
    # Zero singular values are left out, which makes the solution the shortest of all that fit equally well.
    left, singular, right = left[:, :rank], singular[:rank], right[:rank]
    solution = right.T @ (singular / (singular**2 + ridge) * (left.T @ triangle[:, -1]))
    solution[records_with == 0] = 0.0
    before, after = np.abs(residuals(compositions, energies, solution))
    return ReferenceFit(
        energies=solution,
        records_with=records_with,
        num_records=len(energies),
        rank=rank,
        condition=float(singular[0] / singular[-1]),
        mae_before=float(before.mean()),
        mae_after=float(after.mean()),
        rmse_before=float(np.sqrt(np.square(before).mean())),
        rmse_after=float(np.sqrt(np.square(after).mean())),
    )


def fit_common_elements(
    compositions: NDArray[np.integer],
    energies: NDArray[np.floating],
    fallback: NDArray[np.floating],
    min_records: int,
    ridge: float = 0.0,
) -> ReferenceFit:
    """Fit the elements that enough records contain; the others are given an energy and count as unseen.

    Args:
        compositions: (num_records, 94) number of atoms of each element.
        energies: (num_records,) total energies, eV.
        fallback: (94,) energies of the elements left out, eV/atom; like all unseen ones they are 0 in the result.
        min_records: records that an element needs.
        ridge: see `fit_reference`.

    Raises:
        ValueError: no element is in enough records, or see `fit_reference`.
    """
    rare = (compositions > 0).sum(axis=0) < min_records
    if not compositions[:, rare].any():
        return fit_reference(compositions, energies, ridge)
    common = np.where(rare, 0, compositions)
    rows = common.any(axis=1)
    if not rows.any():
        raise ValueError(
            f"no element is in {min_records} training records, so no reference can be fitted: lower"
            " reference.min_records, or prepare more data"
        )
    # On the scale of whole structures: what is left of the rare elements' energy stays with their neighbours.
    return fit_reference(common[rows], (energies - compositions[:, rare] @ fallback[rare])[rows], ridge)


@cache
def bundled_reference(table: BundledTable) -> NDArray[np.float64]:
    """Reference energy of each element in a table that the chgnet package carries: (94,), eV/atom, read-only."""
    from chgnet.model.composition_model import AtomRef  # noqa: PLC0415 (imports torch, which preparing data does not need)

    reference = AtomRef(is_intensive=True)
    reference.initialize_from(table)
    energies = reference.fc.weight.detach().double().numpy()[0].copy()
    energies.flags.writeable = False
    return energies


def _check(compositions: NDArray[np.integer], energies: NDArray[np.floating]) -> None:
    if compositions.ndim != 2 or compositions.shape[1] != NUM_ELEMENTS or energies.shape != compositions.shape[:1]:
        raise ValueError(
            f"a reference is fitted to compositions (n, {NUM_ELEMENTS}) and energies (n,);"
            f" found {compositions.shape} and {energies.shape}"
        )
    if len(energies) == 0:
        raise ValueError("no record with an energy: a reference cannot be fitted")
    if not np.isfinite(energies).all():
        at = np.flatnonzero(~np.isfinite(energies))
        raise ValueError(f"{len(at)} energies are not finite, the first is record {at[0]}: {energies[at[0]]}")
    if (empty := np.flatnonzero(compositions.sum(axis=1) <= 0)).size:
        raise ValueError(f"{empty.size} compositions have no atoms, the first is record {empty[0]}")


def _reduce(
    compositions: NDArray[np.integer], energies: NDArray[np.floating], scales: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Triangle with the same least-squares problem as all records, and the number of records with each element.

    QR block by block: as accurate as an SVD of the whole matrix, which would take gigabytes for MPtrj's 1.6 million.
    """
    triangle = np.zeros((0, NUM_ELEMENTS + 1))
    records_with = np.zeros(NUM_ELEMENTS, dtype=np.int64)
    for start in range(0, len(energies), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        counts = compositions[part]
        rows = np.column_stack((counts, energies[part])) * (scales[part] / counts.sum(axis=1))[:, None]
        triangle = np.asarray(np.linalg.qr(np.vstack((triangle, rows)), mode="r"))
        records_with += (counts > 0).sum(axis=0)
    return triangle, records_with


def residuals(
    compositions: NDArray[np.integer], energies: NDArray[np.floating], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Energies per atom without and with the reference subtracted: (2, num_records), eV/atom.

    Args:
        compositions: (num_records, 94) number of atoms of each element.
        energies: (num_records,) total energies, eV.
        reference: (94,), eV/atom.
    """
    sizes = compositions.sum(axis=1)
    explained = np.concatenate(
        [compositions[at : at + _ROWS_AT_ONCE] @ reference for at in range(0, len(energies), _ROWS_AT_ONCE)]
    )
    return np.stack((energies, energies - explained)) / sizes


def _symbol(index: int) -> str:
    return Element.from_Z(index + 1).symbol


def _symbols(mask: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(_symbol(index) for index in np.flatnonzero(mask).tolist())
