"""The report of study_transfer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from rung.evaluation.report import SHOWN
from rung.reporting.chart import Axis, Cell
from rung.reporting.page import Page, Section
from rung.reporting.plots import Curve, bars, lines
from rung.reporting.table import Column

MEANING: Final = {
    "scratch": "random weights, reference fitted to the target data (Method 1)",
    "trainable": "pretrained weights, their reference trained along (Method 2)",
    "frozen": "pretrained weights, their reference kept (Method 3)",
    "refit": "pretrained weights, reference fitted to the target data (Method 4)",
    "residual": "pretrained weights and reference, plus the shift fitted to what they leave of the labels",
    "isolated": "pretrained weights and reference, plus the shift of isolated atoms",
}


def write_report(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the study as one HTML page."""
    records = summary["num_records"]
    page = Page(
        "Transfer between functionals: which treatment is best",
        f"{records['train']:,} training, {records['validation']:,} validation and {records['test']:,} test records;"
        f" every method with {len(summary['seeds'])} seeds and the same budget. Test materials are never trained on.",
    )
    methods = summary["methods"]
    _tables(page.section("Errors on test materials"), methods)
    _zero_step(page.section("Before the first step"), methods)
    _curves(page.section("While training"), methods)
    _forgetting(page.section("What is left of the pretraining functional"), methods)
    page.write(path)


def _tables(section: Section, methods: Mapping[str, Any]) -> None:
    best = min(methods, key=lambda name: methods[name]["test"]["energy_mae"]["mean"])
    section.tiles(
        {
            "lowest energy error": best,
            **{f"its {SHOWN[key][0]} MAE": _text(methods[best]["test"], key) for key in SHOWN},
        }
    )
    section.table(*_rows(methods, "test"), "Mean absolute errors of the best checkpoint, mean ± spread over seeds")
    names = list(methods)
    for key in ("energy_mae", "force_mae"):
        name, unit, factor = SHOWN[key]
        pairs = [(methods[method]["test"][key]["mean"], methods[method]["test"][key]["spread"]) for method in names]
        heights, spreads = factor * np.array(pairs, dtype=np.float64).T  # no spread becomes NaN, which is not drawn
        chart = bars(names, {"test": heights}, Axis("method"), Axis(f"{name} MAE", unit), spreads={"test": spreads})
        section.figure(chart, f"{name.capitalize()} error by method; the bar's end is the spread over seeds")
    section.text(*(f"{name}: {MEANING[name]}." for name in names if name in MEANING))


def _zero_step(section: Section, methods: Mapping[str, Any]) -> None:
    section.text("What the initial weights and the reference are worth on the test materials, untouched.")
    section.table(*_rows(methods, "zero_step"), "Zero-step mean absolute errors, mean ± spread over seeds")


def _curves(section: Section, methods: Mapping[str, Any]) -> None:
    series = {}
    for name, found in methods.items():
        curve = found["curve"]
        y = 1e3 * np.array(curve["energy_mae"])
        spread = 1e3 * np.array([0.0 if s is None else s for s in curve["spread"]])
        series[name] = Curve(curve["epoch"], y, np.maximum(y - spread, 0.5 * y), y + spread, markers=False)
    chart = lines(series, Axis("epoch"), Axis("validation energy MAE", "meV/atom", log=True))
    section.figure(chart, "Validation error of the energy; the band is the spread over seeds", wide=True)


def _forgetting(section: Section, methods: Mapping[str, Any]) -> None:
    if not any(found["forgetting"]["before"] for found in methods.values()):
        section.text("No probe was given: set probe.path to data of the pretraining functional.")
        return
    section.text("Errors on test materials of the pretraining functional, with the pretraining reference put back.")
    before = next(iter(methods.values()))["forgetting"]["before"]
    ledger = {"pretrained model": {"after": before}} | {name: found["forgetting"] for name, found in methods.items()}
    columns, rows = _rows({name: {"after": found["after"]} for name, found in ledger.items()}, "after")
    section.table(columns, rows, "Mean absolute errors at the pretraining functional, mean ± spread over seeds")


def _rows(methods: Mapping[str, Any], which: str) -> tuple[list[Column], list[list[Cell]]]:
    keys = [key for key in SHOWN if all(key in found[which] for found in methods.values())]
    columns = [Column("method")]
    for key in keys:
        name, unit, factor = SHOWN[key]
        form = ",.1f" if factor > 1 else ".3f"
        columns += [Column(name, unit, form), Column(f"± {name}", unit, form)]
    rows: list[list[Cell]] = []
    for method, found in methods.items():
        row: list[Cell] = [method]
        for key in keys:
            pair, factor = found[which][key], SHOWN[key][2]
            row += [factor * pair["mean"], None if pair["spread"] is None else factor * pair["spread"]]
        rows.append(row)
    return columns, rows


def _text(errors: Mapping[str, Any], key: str) -> str:
    if key not in errors:
        return "–"
    _, unit, factor = SHOWN[key]
    mean, spread = factor * errors[key]["mean"], errors[key]["spread"]
    form = ",.1f" if factor > 1 else ".3f"
    return f"{mean:{form}} {unit}" if spread is None else f"{mean:{form}} ± {factor * spread:{form}} {unit}"
