"""The report of study_functionals."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rung.data.reference import ReferenceFit
from rung.reporting.chart import Axis, Chart
from rung.reporting.distributions import agreement
from rung.reporting.page import Page, Section
from rung.reporting.plots import Points, parity
from rung.reporting.table import Column
from rung.studies.agreement import Agreement, as_json

_Pair = tuple[NDArray[np.float64], NDArray[np.float64]]

LABELS: Final = {
    "forces": Axis("force component", "eV/Å"),
    "stress": Axis("stress component", "GPa"),
    "magmoms": Axis("magnetic moment", "μB"),
}


@dataclass(frozen=True, eq=False)
class FunctionalsFigures:
    """What the study found.

    Attributes:
        views: energies per atom of both functionals, (n,) each, eV/atom, by what was subtracted.
        agreements: of each view.
        labels: other labels of both functionals, flat: components of forces (eV/Å) and stress (GPa), magmoms (μB).
        label_agreements: of each of them.
        names: of the pairs.
        elements: pairs, shift and correlations by element.
        fits: references fitted to the pairs: `lower`, `upper`, and `shift` to their difference.
        tables: the shift beside the chgnet package's tables.
    """

    views: Mapping[str, _Pair]
    agreements: Mapping[str, Agreement | None]
    labels: Mapping[str, _Pair]
    label_agreements: Mapping[str, Agreement | None]
    names: list[str]
    elements: Mapping[str, dict[str, Any]]
    fits: Mapping[str, ReferenceFit]
    tables: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values; energies in eV/atom, the others in Rung's units."""
        return {
            "energy": as_json(self.agreements),
            **as_json(self.label_agreements),
            "by_element": dict(self.elements),
            "fits": {name: fit.to_json() for name, fit in self.fits.items()},
            "tables": dict(self.tables),
        }


def write_report(path: Path, figures: FunctionalsFigures, summary: Mapping[str, Any]) -> None:
    """Write the study as one HTML page."""
    lower, upper = summary["functionals"]["lower"], summary["functionals"]["upper"]
    page = Page(
        f"{lower} and {upper} on the same structures",
        f"{summary['num_pairs']:,} structures that both data sets hold, out of {summary['num_candidates']:,} materials"
        " of equal composition. Differences are the second functional minus the first.",
    )
    _energies(page.section("Energies"), figures, (lower, upper))
    _other_labels(page.section("Forces, stress and magnetic moments"), figures, (lower, upper))
    _elements(page.section("By element"), figures)
    _references(page.section("Fitted references and the published tables"), figures)
    page.write(path)


def _energies(section: Section, figures: FunctionalsFigures, names: tuple[str, str]) -> None:
    raw = figures.agreements["raw"]
    assert raw is not None  # noqa: S101 - a study without pairs has no report
    section.tiles(
        {
            "mean shift, raw": f"{raw.shift:+.2f} eV/atom",
            **{f"correlation, {name}": _r(a.pearson if a else None) for name, a in figures.agreements.items()},
        }
    )
    section.table(
        [
            Column("energies"),
            Column("pairs"),
            Column("Pearson r", form=".4f"),
            Column("mean difference", "eV/atom", "+.4f"),
            Column("spread", "eV/atom", ".4f"),
            Column("MAE", "eV/atom", ".4f"),
        ],
        [[name, a.n, a.pearson, a.shift, a.spread, a.mae] for name, a in figures.agreements.items() if a],
        "Agreement of the energies per atom, by what is subtracted from both",
    )
    for name, pair in figures.views.items():
        if pearson_of(figures, name) is None:
            continue
        caption = f"Energies, {name}: r = {_r(pearson_of(figures, name))}. The dotted line is equality."
        section.figure(_compared(pair, Axis("energy", "eV/atom"), figures.names, names), caption)
    fit = figures.fits["lower"]
    if fit.rank >= fit.num_records:
        section.note(
            f"The {fit.num_records} pairs have as many independent compositions as records, so fitted references"
            " explain every energy exactly, and no correlation is left to judge. Give isolated_atoms, or more pairs."
        )


def pearson_of(figures: FunctionalsFigures, view: str) -> float | None:
    """Correlation of the energies in a view."""
    agreement = figures.agreements[view]
    return agreement.pearson if agreement else None


def _other_labels(section: Section, figures: FunctionalsFigures, names: tuple[str, str]) -> None:
    if not figures.labels:
        section.text("The pairs have no other labels in common.")
        return
    section.table(
        [Column("label"), Column("numbers"), Column("Pearson r", form=".4f"), Column("mean difference"), Column("MAE")],
        [[LABELS[name].title, a.n, a.pearson, a.shift, a.mae] for name, a in figures.label_agreements.items() if a],
        "Agreement of the other labels; differences in the unit of each",
    )
    for name, pair in figures.labels.items():
        section.figure(_compared(pair, LABELS[name], (), names), f"{LABELS[name].name.capitalize()}s of both")


def _elements(section: Section, figures: FunctionalsFigures) -> None:
    section.periodic_table(
        {symbol: found["shift"] for symbol, found in figures.elements.items()},
        Axis("mean shift of the structures with this element", "eV/atom"),
        "How far the raw energies of structures with each element are shifted",
    )
    views = list(figures.views)
    columns = [Column("element"), Column("pairs"), Column("mean shift", "eV/atom", "+.3f")]
    columns += [Column(f"r, {view}", form=".4f") for view in views]
    rows = [
        [symbol, found["pairs"], found["shift"], *(found["pearson"][view] for view in views)]
        for symbol, found in figures.elements.items()
    ]
    section.table(columns, rows, "Pairs, shift and correlation by element; a dash where there are too few pairs")


def _references(section: Section, figures: FunctionalsFigures) -> None:
    tables, shift = figures.tables, figures.fits["shift"]
    rows = tables["elements"]
    section.text(
        f"The shift of each element, fitted to the pairs by least squares: rank {shift.rank} of"
        f" {int((shift.records_with > 0).sum())} elements, condition {shift.condition:.1f}. What composition does not"
        f" explain of the shift is {1000 * shift.mae_after:.1f} meV/atom in the mean."
    )
    if not rows:
        return
    kinds = {"follow the tables": False, "outliers": True}
    series = {
        name: Points(
            [row["tables"] for row in rows.values() if row["outlier"] is outlier],
            [row["fitted"] for row in rows.values() if row["outlier"] is outlier],
            [symbol for symbol, row in rows.items() if row["outlier"] is outlier],
        )
        for name, outlier in kinds.items()
    }
    all_, rest = tables["agreement"], tables["agreement_without_outliers"]
    section.figure(
        parity(series, Axis("shift of the element", "eV/atom"), "MP-r2SCAN minus MPtrj table", "fitted to the pairs"),
        f"Fitted shifts beside those of the chgnet package's tables: r = {_r(all_['pearson'])}, without the outliers"
        f" {_r(rest['pearson'] if rest else None)}.",
    )
    _outliers_and_elements(section, figures)


def _outliers_and_elements(section: Section, figures: FunctionalsFigures) -> None:
    tables, rows = figures.tables, figures.tables["elements"]
    if tables["outliers"]:
        section.note(
            f"Off by far more than the others: {', '.join(tables['outliers'])}. The usual reason is another"
            " pseudopotential, with another number of valence electrons, in one of the four data sets (Yb: Yb_2 in"
            " older Materials Project data, Yb_3 in newer), or a table fitted to few materials of that element."
        )
    section.table(
        [
            Column("element"),
            Column("pairs"),
            Column("fitted", "eV/atom", "+.3f"),
            Column("tables", "eV/atom", "+.3f"),
            Column("difference", "eV/atom", "+.3f"),
            Column("outlier"),
        ],
        [
            [s, figures.elements[s]["pairs"], r["fitted"], r["tables"], r["fitted"] - r["tables"], _yes(r["outlier"])]
            for s, r in rows.items()
        ],
        "Fitted shift and tables, element by element",
    )


def _compared(pair: _Pair, quantity: Axis, labels: tuple[str, ...] | list[str], names: tuple[str, str]) -> Chart:
    return agreement({"pairs": Points(*pair, labels)}, quantity, "pairs", *names)


def _r(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _yes(value: bool) -> str:
    return "yes" if value else ""
