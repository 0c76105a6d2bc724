"""How far two functionals agree on the same structures, and what of their disagreement composition explains.

The question of arXiv 2504.05565, section "energy shifts and poor correlation", for any two prepared data sets.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from rung.config.studies import FunctionalsConfig, LabelledSetConfig
from rung.data.dataset import ShardDataset
from rung.data.fields import Labels
from rung.data.isolated import read_isolated_atoms
from rung.data.pairing import Pairs, find_pairs
from rung.data.reference import ReferenceFit, bundled_reference, fit_reference
from rung.data.staging import staged
from rung.studies.agreement import Agreement, as_json, pearson
from rung.studies.functionals_report import FunctionalsFigures, write_report

_ROWS_AT_ONCE: Final = 2_000
_MAD_TO_STD: Final = 1.4826  # of a normal distribution
_OUTLIER: Final = 6.0
"""Robust standard deviations from the median beyond which an element does not follow the bundled tables."""


class NoPairsError(ValueError):
    """Two data sets without a structure in common."""


@dataclass(frozen=True, eq=False)
class PairedEnergies:
    """Energies of the same structures at two functionals.

    Attributes:
        compositions: (n, 94) atoms of each element.
        lower: (n,) total energies, eV.
        upper: (n,) total energies, eV.
        names: (n,) material and frame.
    """

    compositions: NDArray[np.integer]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    names: list[str]

    def per_atom(
        self, lower: NDArray[np.floating] | None = None, upper: NDArray[np.floating] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Energies per atom (n,), eV/atom, less the reference (94,) of each functional where one is given."""
        sizes = self.compositions.sum(axis=1)
        pairs = ((self.lower, lower), (self.upper, upper))
        first, second = ((e if r is None else e - self.compositions @ r) / sizes for e, r in pairs)
        return first, second


def study_functionals(config: FunctionalsConfig) -> Path:
    """Compare two data sets and write `summary.json` and `report.html` to the output folder.

    Returns:
        path of the summary.

    Raises:
        NoPairsError: no structure is in both.
        ValueError: a data set or a file of isolated atoms cannot be read, no pair has energies, or an isolated atom is
            missing.
    """
    lower, upper = (ShardDataset(staged(part.data)) for part in (config.lower, config.upper))
    pairs = find_pairs(lower, upper, config.tolerance)
    if len(pairs) == 0:
        raise NoPairsError(
            f"{config.lower.data.path} and {config.upper.data.path} have {pairs.num_candidates} materials of equal"
            f" composition in common, but no structure that is the same to {config.tolerance} Å: prepare both from"
            " records with the same material ids, or raise tolerance"
        )
    energies = _energies(lower, upper, pairs)
    labels = _other_labels(lower, upper, pairs)
    isolated = _isolated(config.lower, energies), _isolated(config.upper, energies)
    figures = _figures(config, energies, labels, isolated)
    summary = figures.to_json() | {
        "num_pairs": len(pairs),
        "num_candidates": pairs.num_candidates,
        "num_records": {"lower": len(lower), "upper": len(upper)},
        "manifest_hash": {"lower": lower.manifest_hash, "upper": upper.manifest_hash},
        "functionals": {"lower": _functional(lower, pairs.first), "upper": _functional(upper, pairs.second)},
        "config": config.model_dump(mode="json"),
    }
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder / "report.html", figures, summary)
    path = folder / "summary.json"
    path.write_text(json.dumps(summary, indent=1))
    return path


def _energies(lower: ShardDataset, upper: ShardDataset, pairs: Pairs) -> PairedEnergies:
    both = lower.index.labels[pairs.first] & upper.index.labels[pairs.second]
    labelled = both & Labels.ENERGY > 0
    first, second = pairs.first[labelled], pairs.second[labelled]
    names = lower.record_names(first.tolist())
    return PairedEnergies(
        lower.compositions(first).astype(np.int64), lower.index.energy[first], upper.index.energy[second], names
    )


def _other_labels(
    lower: ShardDataset, upper: ShardDataset, pairs: Pairs
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Forces, stress and moments of the pairs in which both have them, flat; atoms in the order of the lower set."""
    collected: dict[str, tuple[list[NDArray], list[NDArray]]] = {
        name: ([], []) for name in ("forces", "stress", "magmoms")
    }
    for start in range(0, len(pairs), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        here, there = lower.records.read(pairs.first[rows]), upper.records.read(pairs.second[rows])
        for one, other, order in zip(here, there, pairs.orders[rows], strict=True):
            for name, (first, second) in collected.items():
                a, b = getattr(one, name), getattr(other, name)
                if a is not None and b is not None:
                    first.append(a.ravel())
                    second.append((b if name == "stress" else b[order]).ravel())
    return {
        name: (np.concatenate(first).astype(np.float64), np.concatenate(second).astype(np.float64))
        for name, (first, second) in collected.items()
        if first
    }


def _isolated(part: LabelledSetConfig, energies: PairedEnergies) -> NDArray[np.float64] | None:
    if part.isolated_atoms is None:
        return None
    atoms = read_isolated_atoms(part.isolated_atoms, part.column)
    missing = (energies.compositions.sum(axis=0) > 0) & np.isnan(atoms)
    if missing.any():
        symbols = " ".join(Element.from_Z(int(z) + 1).symbol for z in np.flatnonzero(missing))
        raise ValueError(
            f"{part.isolated_atoms} has no energy of {symbols}, which the pairs contain: complete it, or leave"
            " isolated_atoms out"
        )
    return np.nan_to_num(atoms)


def _figures(
    config: FunctionalsConfig,
    energies: PairedEnergies,
    labels: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    isolated: tuple[NDArray[np.float64] | None, NDArray[np.float64] | None],
) -> FunctionalsFigures:
    fits = [fit_reference(energies.compositions, e) for e in (energies.lower, energies.upper)]
    views = {"raw": energies.per_atom()}
    if isolated[0] is not None and isolated[1] is not None:
        views["less isolated atoms"] = energies.per_atom(*isolated)
    views["less fitted references"] = energies.per_atom(fits[0].energies, fits[1].energies)
    shift = fit_reference(energies.compositions, energies.upper - energies.lower)
    return FunctionalsFigures(
        views=views,
        agreements={name: Agreement.of(*pair) for name, pair in views.items()},
        labels=labels,
        label_agreements={name: Agreement.of(*pair) for name, pair in labels.items()},
        names=energies.names,
        elements=_by_element(energies, views, config.min_pairs),
        fits={"lower": fits[0], "upper": fits[1], "shift": shift},
        tables=compare_with_tables(shift),
    )


def _by_element(
    energies: PairedEnergies,
    views: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    min_pairs: int,
) -> dict[str, dict[str, Any]]:
    """For each element: its pairs, their mean shift, and the correlation of each view among them."""
    found = {}
    for place in np.flatnonzero(energies.compositions.sum(axis=0)).tolist():
        rows = energies.compositions[:, place] > 0
        views_here = {name: (first[rows], second[rows]) for name, (first, second) in views.items()}
        enough = rows.sum() >= min_pairs
        found[Element.from_Z(place + 1).symbol] = {
            "pairs": int(rows.sum()),
            "shift": float((views_here["raw"][1] - views_here["raw"][0]).mean()),
            "pearson": {name: pearson(*pair) if enough else None for name, pair in views_here.items()},
        }
    return found


def compare_with_tables(shift: ReferenceFit) -> dict[str, Any]:
    """The fitted shift of each element beside the difference of the chgnet package's two tables.

    Args:
        shift: fit of the difference of the total energies at the two functionals.

    Returns:
        the correlation over all elements and without outliers, and each element's two numbers, eV/atom.
    """
    tables = bundled_reference("MP-r2SCAN") - bundled_reference("MPtrj")
    told = (shift.records_with > 0) & (bundled_reference("MPtrj") != 0) & (bundled_reference("MP-r2SCAN") != 0)
    places = np.flatnonzero(told)
    fitted, expected = shift.energies[places], tables[places]
    off = fitted - expected
    centre = float(np.median(off)) if off.size else 0.0
    scale = _MAD_TO_STD * float(np.median(np.abs(off - centre))) if off.size else 0.0
    outlying = np.abs(off - centre) > _OUTLIER * max(scale, 1e-9)
    symbols = [Element.from_Z(int(place) + 1).symbol for place in places]
    return {
        "elements": {
            symbol: {"fitted": float(f), "tables": float(e), "outlier": bool(o)}
            for symbol, f, e, o in zip(symbols, fitted, expected, outlying, strict=True)
        },
        "agreement": as_json({"all": Agreement.of(expected, fitted)})["all"],
        "agreement_without_outliers": as_json({"": Agreement.of(expected[~outlying], fitted[~outlying])})[""],
        "outliers": [symbol for symbol, is_off in zip(symbols, outlying, strict=True) if is_off],
        "shared_elements": shift.rank < int((shift.records_with > 0).sum()),
    }


def _functional(dataset: ShardDataset, ids: NDArray[np.int64]) -> str:
    return " and ".join(sorted({name.decode() for name in np.unique(dataset.index.functional[ids]).tolist()}))
