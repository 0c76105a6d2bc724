"""The report of study_scaling."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rung.evaluation.report import SHOWN
from rung.reporting.chart import Axis, Cell
from rung.reporting.page import Page, Section
from rung.reporting.plots import Curve, lines
from rung.reporting.table import Column
from rung.studies.power_law import PowerLaw


def write_report(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the study as one HTML page."""
    records = summary["num_records"]
    page = Page(
        "How much data the higher functional needs",
        f"Nested subsets of {records['train']:,} training records, {len(summary['seeds'])} seeds, all judged on the"
        f" same {records['test']:,} test records of other materials.",
    )
    keys = [key for key in SHOWN if key in next(iter(summary["zero_data"].values()))]
    _efficiency(page.section("Data efficiency"), summary, keys)
    for key in keys:
        _curves(page.section(f"{SHOWN[key][0].capitalize()} error against number of records"), summary, key)
    _laws(page.section("Power laws"), summary, keys)
    page.write(path)


def _efficiency(section: Section, summary: Mapping[str, Any], keys: list[str]) -> None:
    yardstick = summary["yardstick"]
    section.text(
        f"How many records {yardstick} needs, by its power law, for the error that each method reaches with n."
        " A number beyond the largest subset is an extrapolation."
    )
    columns = [Column("method"), Column("n", "records")]
    columns += [Column(f"{SHOWN[key][0]}: {yardstick} needs", "records", ",.0f") for key in keys]
    columns += [Column(f"{SHOWN[key][0]}: ratio", form=".3g") for key in keys]
    rows: list[list[Cell]] = []
    for method, found in summary["data_efficiency"].items():
        for at, first in enumerate(found[keys[0]]):
            row: list[Cell] = [method, first["records"]]
            row += [found[key][at]["equals"] for key in keys]
            rows.append(row + [found[key][at]["ratio"] for key in keys])
    section.table(columns, rows, f"{yardstick} with k times n records equals each method with n")


def _curves(section: Section, summary: Mapping[str, Any], key: str) -> None:
    name, unit, factor = SHOWN[key]
    series: dict[str, Curve] = {}
    for method, points in summary["points"].items():
        n = np.array([point["records"] for point in points])
        y = factor * np.array([point["best"][key]["mean"] for point in points])
        spread = factor * np.array([point["best"][key]["spread"] or 0.0 for point in points])
        series[method] = Curve(n, y, np.maximum(y - spread, 0.5 * y), y + spread)
    section.figure(
        lines(series, Axis("training records", log=True), Axis(f"{name} MAE", unit, log=True)),
        f"{name.capitalize()} error on test materials; the band is the spread over seeds",
    )
    fitted = {method: _law_curve(summary, method, key, factor) for method in summary["points"]}
    drawn = {method: curve for method, curve in fitted.items() if curve is not None}
    if drawn:
        section.figure(
            lines(drawn, Axis("training records", log=True), Axis(f"{name} MAE", unit, log=True)),
            "Fitted power laws with their 95 % confidence bands",
        )
    zero = {method: factor * found[key] for method, found in summary["zero_data"].items()}
    section.text(
        "Without a step, with the reference of the largest subset: "
        + ", ".join(f"{method} {value:.3g} {unit}" for method, value in zero.items())
        + "."
    )


def _law_curve(summary: Mapping[str, Any], method: str, key: str, factor: float) -> Curve | None:
    law = summary["laws"][method][key]
    if law is None:
        return None
    records = [point["records"] for point in summary["points"][method]]
    n = np.geomspace(max(1, min(records)), max(records), 30)
    y, low, high = PowerLaw(**law).at(n)
    return Curve(n, factor * y, factor * low, factor * high, markers=False)


def _laws(section: Section, summary: Mapping[str, Any], keys: list[str]) -> None:
    columns = [Column("method"), Column("error"), Column("exponent", form="+.3f"), Column("95 % from", form="+.3f")]
    columns += [Column("to", form="+.3f"), Column("R²", form=".3f"), Column("points")]
    rows: list[list[Cell]] = []
    for method, laws in summary["laws"].items():
        for key in keys:
            law = laws[key]
            figures: list[Cell] = [None] * 5
            if law is not None:
                figures = [law[each] for each in ("slope", "slope_low", "slope_high", "r_squared", "n_points")]
            rows.append([method, SHOWN[key][0], *figures])
    section.text(
        f"log10(error) = intercept + exponent · log10(n), least squares over all runs with at least"
        f" {summary['fit_from']:,} training records; seeds are points of their own."
    )
    section.table(columns, rows, "Exponents with their confidence intervals")
