"""report.html of an evaluation: where a model is right, where it is wrong, and against what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rung.data.dataset import ShardDataset
from rung.evaluation.breakdown import FORCES, MAGNETIC, formulas
from rung.evaluation.comparison import PER_ATOM, Compared, Comparison
from rung.evaluation.phases import PhaseJudgement
from rung.evaluation.physics import Check
from rung.reporting.chart import Axis, Cell
from rung.reporting.distributions import MOST_POINTS, agreement, histogram
from rung.reporting.page import Page, Section
from rung.reporting.plots import Points, bars
from rung.reporting.table import Column
from rung.training.wording import UNITS

SHOWN: Final = {f"{target}_mae": (target, unit, factor) for target, (unit, factor) in UNITS.items()}
"""Errors by key: name, unit and factor."""

QUANTITIES: Final = {
    "energy": Axis("energy", "eV/atom"),
    "force": Axis("force component", "eV/Å"),
    "stress": Axis("stress component", "GPa"),
    "magmom": Axis("magnetic moment", "μB"),
}
"""Axes of labels and predictions, by target."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What the page draws besides the figures of the summary.

    Attributes:
        compared: the model's predictions beside the labels.
        baseline: those of the other model, if there is one.
        phases: formation and decomposition energies, unless none were asked for.
        laws: of the physics gate.
    """

    compared: Comparison
    baseline: Comparison | None
    phases: PhaseJudgement | None
    laws: Sequence[Check]


def write_report(path: Path, summary: Mapping[str, Any], findings: Findings, dataset: ShardDataset) -> None:
    """Write the evaluation as one HTML page.

    Args:
        path: of the page.
        summary: the evaluation's figures.
        findings: what is drawn.
        dataset: the records' names.
    """
    page = Page(
        f"What {summary['model']} is worth on {summary['data']}",
        f"{summary['num_records']:,} {summary['split']} records. Errors are prediction minus label; MAE is their mean"
        " absolute value, over components for forces and stresses.",
    )
    _errors(page.section("Errors"), summary)
    _parity(page.section("Labels and predictions"), findings, dataset)
    _elements(page.section("By element"), summary["errors_by"]["element"])
    _groups(page.section("By size, force, magnetism and functional"), summary)
    _phases(page.section("Formation and decomposition energies"), findings.phases)
    _worst(page.section("Worst cases"), summary["worst"])
    _ledger(page.section("What is left of the pretraining functional"), summary["forgetting"])
    _laws(page.section("Laws of a potential"), findings.laws)
    page.write(path)


def _errors(section: Section, summary: Mapping[str, Any]) -> None:
    errors, baseline = summary["errors"], summary["baseline"]
    known = [key for key in SHOWN if key in errors]
    section.tiles({f"{SHOWN[key][0]} MAE": _text(key, errors[key]) for key in known})
    columns = [Column("target"), Column("unit"), Column("MAE", form=",.4g"), Column("RMSE", form=",.4g")]
    if baseline:
        name = f"baseline {baseline['model']}"
        columns += [Column(f"MAE, {name}", form=",.4g"), Column(f"RMSE, {name}", form=",.4g")]
        columns += [Column("MAE over the baseline's", form=".3f"), Column("better than the baseline on", "%", ".1f")]
    rows: list[list[Cell]] = []
    for key in known:
        target, (name, unit, factor) = key.removesuffix("_mae"), SHOWN[key]
        row: list[Cell] = [name, unit, factor * errors[key], factor * errors[f"{target}_rmse"]]
        if baseline:
            other = baseline["errors"]
            ratio = errors[key] / other[key] if other[key] else None
            row += [factor * other[key], factor * other[f"{target}_rmse"], ratio, 100 * baseline["better"][target]]
        rows.append(row)
    section.table(columns, rows, "Errors over all records; better: share of structures (energy, stress) or atoms")
    if not baseline:
        section.text("Set baseline to another model to see both side by side.")


def _parity(section: Section, findings: Findings, dataset: ShardDataset) -> None:
    ids = findings.compared.record_ids[:MOST_POINTS]  # more are drawn without names
    pairs = zip(formulas(dataset, ids), dataset.record_names(ids.tolist()), strict=True)
    named = [f"{formula} {record}" for formula, record in pairs]
    for target, compared in findings.compared.targets.items():
        both = {"model": compared}
        if findings.baseline is not None:
            both["baseline"] = findings.baseline.targets[target]
        series = {name: _points(each, named) for name, each in both.items()}
        quantity = QUANTITIES[target]
        section.figure(
            agreement(series, quantity, "atoms" if target in PER_ATOM else "structures"),
            f"{quantity.name.capitalize()}: prediction against label. The dotted line is equality.",
        )
        errors = {name: each.error.ravel() for name, each in both.items()}
        finite = {name: values[np.isfinite(values)] for name, values in errors.items()}
        error = Axis(f"error of the {quantity.name}", quantity.unit)
        section.figure(histogram(finite, error, Axis("labels")), f"Errors of the {quantity.name}, prediction - label")


def _points(compared: Compared, named: list[str]) -> Points:
    if compared.label.size > MOST_POINTS:
        return Points(compared.label.ravel(), compared.prediction.ravel())
    components = compared.label[0].size
    labels = [named[row] for row in compared.row.tolist() for _ in range(components)]
    return Points(compared.label.ravel(), compared.prediction.ravel(), labels)


def _elements(section: Section, elements: Mapping[str, Mapping[str, float]]) -> None:
    section.text(
        "Energy and stress: structures that contain the element. Force and moment: atoms of the element. An element"
        " that stands out in energy but not in force points to its reference energy, not to the network."
    )
    for key in ("energy_mae", "force_mae", "magmom_mae"):
        name, unit, factor = SHOWN[key]
        values = {symbol: factor * found[key] for symbol, found in elements.items() if key in found}
        if values:
            section.periodic_table(values, Axis(f"{name} MAE", unit, log=True), f"{name.capitalize()} MAE by element")
    section.table(*_rows(elements, "element", "records"), "MAE by element")


def _groups(section: Section, summary: Mapping[str, Any]) -> None:
    groups = summary["errors_by"]
    _group(section, groups["num_atoms"], "atoms in the cell", "MAE by number of atoms")
    _forces(section, groups["force"])
    if groups["magnetism"]:
        caption = f"MAE of structures with and without a moment above {MAGNETIC} μB in the labels"
        section.table(*_rows(groups["magnetism"], "labels", "records"), caption)
    section.table(*_rows(summary["errors_by_functional"], "functional", None), "MAE by functional of the labels")


def _group(section: Section, groups: Mapping[str, Mapping[str, float]], name: str, caption: str) -> None:
    section.table(*_rows(groups, name, "records"), caption)
    for key in ("energy_mae", "force_mae"):
        known = {group: found[key] for group, found in groups.items() if key in found}
        if known:
            title, unit, factor = SHOWN[key]
            heights = {title: [factor * value for value in known.values()]}
            section.figure(
                bars(list(known), heights, Axis(name), Axis(f"{title} MAE", unit)), f"{title.capitalize()} {caption}"
            )


def _forces(section: Section, groups: Mapping[str, Mapping[str, float]]) -> None:
    if not groups:
        return
    columns = [Column("force on the atom (eV/Å)"), Column("atoms"), Column("MAE of a component", "meV/Å", ",.1f")]
    columns += [Column("mean error of the length", "meV/Å", "+,.1f"), Column("mean angle between the two", "°", ".1f")]
    rows: list[list[Cell]] = [
        [name, int(found["atoms"]), 1e3 * found["force_mae"], 1e3 * found["length_error"], found.get("angle")]
        for name, found in groups.items()
    ]
    section.table(columns, rows, "Forces by their size in the labels; a negative length error is a softened potential")
    heights = [1e3 * found["force_mae"] for found in groups.values()]
    chart = bars(list(groups), {"force": heights}, Axis("force on the atom", "eV/Å"), Axis("force MAE", "meV/Å"))
    section.figure(chart, f"Force MAE by the force on the atom, in steps from {FORCES[1]} to {FORCES[-1]:g} eV/Å")


def _phases(section: Section, judgement: PhaseJudgement | None) -> None:
    if judgement is None:
        section.text("phase_diagrams is 0, so none were built.")
        return
    section.text(
        "Formation energies are relative to the elements, decomposition energies to the phases of other compositions."
        " Labels and model have a phase diagram each, made of the lowest record of every material of the whole data"
        " set, so an error of the elemental references cancels here."
    )
    if judgement.left_out:
        reasons = ", ".join(f"{number:,} ({reason})" for reason, number in sorted(judgement.left_out.items()))
        section.note(f"Materials that could not be judged: {reasons}.")
    phases, stable = judgement.phases, judgement.stable
    if not phases or judgement.formation_mae is None or judgement.decomposition_mae is None:
        section.text("No material is left: compounds are judged where the data set has records of all their elements.")
        return
    section.tiles(
        {
            "formation energy MAE": f"{1e3 * judgement.formation_mae:,.1f} meV/atom",
            "decomposition energy MAE": f"{1e3 * judgement.decomposition_mae:,.1f} meV/atom",
            "materials": f"{len(phases):,}",
            "on the hull: labels / model / both": f"{stable['labels']} / {stable['model']} / {stable['both']}",
        }
    )
    names = [f"{phase.formula} {phase.record}" for phase in phases]
    for name in ("formation", "decomposition"):
        label, model = np.array([getattr(phase, name) for phase in phases]).T
        quantity = Axis(f"{name} energy", "eV/atom")
        series = {"materials": Points(label, model, names)}
        section.figure(agreement(series, quantity, "materials"), f"{name.capitalize()} energy: model against labels")


def _worst(section: Section, cases: Mapping[str, list[Mapping[str, Any]]]) -> None:
    for target, found in cases.items():
        quantity = QUANTITIES[target]
        columns = [Column("record"), Column("formula"), Column("functional"), Column("atoms")]
        columns += [Column(name, quantity.unit, "+.4g") for name in ("label", "prediction", "error")]
        rows: list[list[Cell]] = [
            [
                *(case[key] for key in ("record", "formula", "functional", "num_atoms")),
                *(case[key] for key in ("label", "prediction", "error")),
            ]
            for case in found
        ]
        worst_one = "" if target == "energy" else " (worst one of each record)"
        section.table(columns, rows, f"Largest errors of the {quantity.name}{worst_one}")


def _ledger(section: Section, ledger: Mapping[str, Mapping[str, float]] | None) -> None:
    if ledger is None:
        section.text("No probe was given: set probe.path to data of the pretraining functional.")
        return
    section.text("Errors on test materials of the pretraining functional, with the pretraining reference in both.")
    names = {"before": "pretrained model", "after": "this model"}
    columns, rows = _rows({names[when]: errors for when, errors in ledger.items()}, "model", None)
    section.table(columns, rows, "MAE at the pretraining functional")


def _laws(section: Section, laws: Sequence[Check]) -> None:
    broken = [law.name for law in laws if not law.holds]
    if broken:
        section.note(f"The model is no potential, and its export would be refused: broken is {'; '.join(broken)}.")
    columns = [Column("law"), Column("largest deviation", form=".2g"), Column("limit", form=".2g"), Column("unit")]
    rows: list[list[Cell]] = [[law.name, law.found, law.limit, law.unit, "yes" if law.holds else "no"] for law in laws]
    section.table([*columns, Column("holds")], rows, "The physics gate on these weights, in double precision")


def _rows(
    groups: Mapping[str, Mapping[str, float]], name: str, counted: str | None
) -> tuple[list[Column], list[list[Cell]]]:
    """A table of groups by the errors that they have."""
    keys = [key for key in SHOWN if any(key in found for found in groups.values())]
    columns = [Column(name)] + ([Column(counted)] if counted else [])
    for title, unit, factor in (SHOWN[key] for key in keys):
        columns.append(Column(title, unit, ",.1f" if factor > 1 else ".3f"))
    rows: list[list[Cell]] = []
    for group, found in groups.items():
        row: list[Cell] = [group]
        if counted:
            row.append(int(found[counted]))
        rows.append(row + [SHOWN[key][2] * found[key] if key in found else None for key in keys])
    return columns, rows


def _text(key: str, value: float) -> str:
    _, unit, factor = SHOWN[key]
    return f"{factor * value:{',.1f' if factor > 1 else '.3f'}} {unit}"
