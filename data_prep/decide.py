"""What only the whole set can tell: repetitions, outliers and lying labels; and then the split.

Arrays in, arrays out. The decisions depend on the stored records alone, not on how they were read or by how many.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_prep.facts import MEASURES, NO_REASON, REASONS, FactsTable
from data_prep.split import split_of_records
from data_prep.unit_check import check_size, fitting_unit, wrong_energies
from rung.config.preparation import FilterConfig, SplitConfig
from rung.data.fields import Labels
from rung.data.index import REJECTED, Index
from rung.data.record import Reason
from rung.data.reference import BundledTable, bundled_reference, fit_reference, residuals

logger = logging.getLogger(__name__)

_SAME_ENERGY: Final = 1e-4  # eV/atom
_MAD_TO_STD: Final = 1.4826  # of a normal distribution
_FEWEST_FOR_ROBUST: Final = 20  # records; of fewer, the spread is not known
_NEVER_FAR: Final = 2.0  # eV/atom; bonds are that strong
_ROUNDS: Final = 20
_ROWS_AT_ONCE: Final = 65_536

_TABLES: Final[Mapping[str, BundledTable]] = {
    "GGA": "MPtrj",
    "GGA+U": "MPtrj",
    "r2SCAN": "MP-r2SCAN",
    "r2SCAN+U": "MP-r2SCAN",
}
_FITS: Final = 3.0  # eV/atom; cohesion, and what pseudopotentials differ by, stay below this
_CLEARLY_BETTER: Final = 4.0


class LabelsLieError(ValueError):
    """The energies of a set as a whole belong to another functional than it states."""


@dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of each stored record.

    Attributes:
        reason: (n,) int8, position in `data_prep.facts.REASONS`, or `NO_REASON` for a record that is used.
        details: what was found, by the id of each record that is set aside.
        split: (n,) uint8, position in `rung.data.index.SPLITS`, or `REJECTED`.
    """

    reason: NDArray[np.int8]
    details: Mapping[int, str]
    split: NDArray[np.uint8]


class _Pending:
    """Decisions in the making: the first reason of a record is the one that counts."""

    def __init__(self, facts: FactsTable, restored: Sequence[int]) -> None:
        self.reason = facts.refusal.copy()
        self.details = dict(facts.details)
        self._restored = np.isin(np.arange(len(facts)), restored)
        self.reason[self._restored] = NO_REASON

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Records that nothing has been found against: (n,)."""
        return self.reason == NO_REASON

    def refuse(self, rows: Sequence[int], reason: Reason, details: Sequence[str]) -> None:
        """Set records aside, unless someone has put them back by hand."""
        for row, detail in zip(rows, details, strict=True):
            if self.reason[row] == NO_REASON and not self._restored[row]:
                self.reason[row] = REASONS.index(reason)
                self.details[row] = detail


def decide(
    index: Index, facts: FactsTable, filters: FilterConfig, split: SplitConfig, restored: Sequence[int] = ()
) -> Decision:
    """Decide about every stored record.

    Args:
        index: of all records.
        facts: of all records.
        filters: what is set aside.
        split: how the rest is split.
        restored: ids of records that are used whatever the filters say.

    Raises:
        LabelsLieError: most records of a functional have energies of another one.
        WrongUnitError: most labels are in another unit.
    """
    pending = _Pending(facts, restored)
    _refuse_repetitions(pending, index, facts, filters)
    if filters.functional_check != "off":
        _check_functionals(pending, index, filters)
    if filters.outlier_z is not None:
        _refuse_outliers(pending, index, facts, filters, filters.outlier_z)
    splits = np.where(pending.kept, split_of_records(index, split), REJECTED).astype(np.uint8)
    details = {row: pending.details[row] for row in np.flatnonzero(~pending.kept).tolist()}
    return Decision(pending.reason, details, splits)


def _refuse_repetitions(pending: _Pending, index: Index, facts: FactsTable, filters: FilterConfig) -> None:
    """Keep the first of the frames with the same names, and of those with the same structure and energy."""

    def name(row: int) -> str:
        return f"{index.material_id[row].decode()}/{index.frame_id[row].decode()}"

    names = (index.material_id, index.frame_id, index.functional)
    for row, first in _repetitions(pending.kept, *names):
        text = f"{name(first)} with functional {index.functional[first].decode()} came before (record {first})"
        pending.refuse([row], Reason.DUPLICATE, [text])
    if filters.duplicates == "keep":
        return
    energy = np.nan_to_num(np.round(facts.measures[:, 0] / _SAME_ENERGY), nan=0.0)
    for row, first in _repetitions(pending.kept, facts.structure_hash, energy, index.functional, index.labels):
        text = f"the same structure, functional and energy as record {first}, {name(first)} (filters.duplicates)"
        pending.refuse([row], Reason.DUPLICATE, [text])


def _repetitions(mask: NDArray[np.bool_], *columns: NDArray) -> Iterator[tuple[int, int]]:
    """Each marked row that repeats an earlier marked one, and that earlier one."""
    rows = np.flatnonzero(mask)
    order = rows[np.lexsort((rows, *(column[rows] for column in columns)))]
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    group = np.concatenate(([0], np.cumsum(~same))) if len(order) else np.array([], dtype=np.int64)
    first = order[np.searchsorted(group, group)] if len(order) else order
    yield from zip(order[1:][same].tolist(), first[1:][same].tolist(), strict=True)


def _check_functionals(pending: _Pending, index: Index, filters: FilterConfig) -> None:
    """Compare energies with the elemental references of the stated functional and of the others that are known.

    The references of GGA and r2SCAN lie 20 (In) to 70 eV/atom (U) apart for heavy elements. A record is refused if its
    energy is far from the stated functional's and near another's; elements where the two agree cannot be told apart,
    and pass.
    """
    with_energy = index.labels & Labels.ENERGY > 0
    for functional in sorted(set(index.functional[pending.kept].tolist())):
        stated = _TABLES.get(functional.decode())
        if stated is None:
            continue
        rows = np.flatnonzero(pending.kept & with_energy & (index.functional == functional))
        distance = {table: np.abs(_referenced(index, rows, table)) for table in sorted(set(_TABLES.values()))}
        mine = distance.pop(stated)
        other, theirs = next(iter(distance.items()))
        wrong = (mine > _FITS) & (theirs < _FITS) & (mine > _CLEARLY_BETTER * theirs)
        if (mine > _FITS).sum() > 0.5 * len(rows):
            sizes = index.num_atoms[rows]
            reference = index.energy[rows] / sizes - _referenced(index, rows, stated)
            found = fitting_unit(index.energy[rows], sizes, reference, _FITS)
            if found is not None and found[1] > wrong.sum():
                raise wrong_energies(found[0], functional.decode(), found[1], len(rows))
        if wrong.sum() > 0.5 * len(rows):
            raise LabelsLieError(_whole_set_text(functional.decode(), other, int(wrong.sum()), len(rows)))
        if filters.functional_check == "reject":
            details = [
                f"its energy is {far:.1f} eV/atom from the references {stated} of the stated functional, and {near:.1f}"
                f" from {other} (filters.functional_check)"
                for far, near in zip(mine[wrong], theirs[wrong], strict=True)
            ]
            pending.refuse(rows[wrong].tolist(), Reason.FUNCTIONAL_MISMATCH, details)
        elif wrong.any():
            logger.warning(
                "%s of %s records that state %s have energies that fit %s instead, the first is record %d",
                *(f"{wrong.sum():,}", f"{len(rows):,}", functional.decode(), other, rows[wrong][0]),
            )


def _whole_set_text(functional: str, other: str, wrong: int, total: int) -> str:
    return (
        f"{wrong:,} of {total:,} records that state the functional {functional} have energies that fit the elemental"
        f" references {other} instead: correct source.functional or the file, or set filters.functional_check to off"
        " if the energies have another zero on purpose"
    )


def _referenced(index: Index, rows: NDArray[np.int64], table: BundledTable) -> NDArray[np.float64]:
    """Energy per atom above a bundled table of references: (len(rows),), eV/atom."""
    reference = bundled_reference(table)
    parts = [
        residuals(index.compositions(part), index.energy[part], reference)[1]
        for part in (rows[at : at + _ROWS_AT_ONCE] for at in range(0, len(rows), _ROWS_AT_ONCE))
    ]
    return np.concatenate(parts) if parts else np.array([])


def _refuse_outliers(pending: _Pending, index: Index, facts: FactsTable, filters: FilterConfig, most: float) -> None:
    """Refuse what lies both beyond the robust limit of its functional's records and beyond the floor of the config."""
    floors = (
        (1, Reason.FORCE_OUTLIER, filters.force_floor, "largest force", "eV/Å"),
        (2, Reason.STRESS_OUTLIER, filters.stress_floor, "largest stress", "GPa"),
    )
    for functional in sorted(set(index.functional[pending.kept].tolist())):
        of_this = pending.kept & (index.functional == functional)
        rows = np.flatnonzero(of_this & (index.labels & Labels.ENERGY > 0))
        above = robust_residuals(index, rows)
        limit = max(filters.energy_floor, most * spread(above))
        far = np.abs(above) > limit
        details = [
            f"referenced energy {value:+,.2f} eV/atom from the median; the limit is {limit:,.2f}"
            for value in above[far]
        ]
        pending.refuse(rows[far].tolist(), Reason.ENERGY_OUTLIER, details)
        for column, reason, floor, noun, unit in floors:
            rows = np.flatnonzero(of_this & np.isfinite(facts.measures[:, column]))
            values = facts.measures[rows, column]
            check_size(MEASURES[column].label, values, floor)
            limit = max(floor, float(np.median(values)) + most * spread(values)) if len(values) else floor
            far = values > limit
            details = [f"{noun} {value:,.1f} {unit}; the limit is {limit:,.1f}" for value in values[far]]
            pending.refuse(rows[far].tolist(), reason, details)


def robust_residuals(index: Index, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Energies per atom above a reference fitted to these records, from their median: (len(rows),), eV/atom.

    The fit minimises Huber's loss (Huber 1964) by reweighting: what lies far out counts by its distance and not by its
    square, so that absurd energies do not hide themselves in the reference. An element that only such records contain
    is fitted to them, and they cannot be judged.
    """
    above = np.zeros(len(rows))
    weights = np.ones(len(rows))
    counts, energy = index.compositions(rows), index.energy[rows]
    for _ in range(_ROUNDS if len(rows) else 0):
        fit = fit_reference(counts, energy, weights=weights)
        above = residuals(counts, energy, fit.energies)[1]
        above -= np.median(above)
        before, weights = weights, np.minimum(1.0, _NEVER_FAR / np.maximum(np.abs(above), 1e-12))
        if np.allclose(weights, before, rtol=0.05, atol=0):
            break
    return above


def spread(values: NDArray[np.float64]) -> float:
    """Standard deviation of values (n,) by their median absolute deviation, in their unit; 0 of fewer than 20."""
    if len(values) < _FEWEST_FOR_ROBUST:
        return 0.0
    return float(_MAD_TO_STD * np.median(np.abs(values - np.median(values))))
