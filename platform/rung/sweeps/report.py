"""report.html: what a sweep found, on one page for a person to look at."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.config.space import Dimension
from rung.config.tree import SweepConfig
from rung.reporting.chart import Axis, Cell
from rung.reporting.page import Page, Section
from rung.reporting.plots import Curve, Points, bars, lines, parallel, scatter
from rung.reporting.table import Column
from rung.sweeps.outcome import Outcome, ranked
from rung.sweeps.table import duration, point_text, values_text

REPORT_NAME = "report.html"
_MOST_CURVES = 12
_RATE, _DEPTH = "optimizer.learning_rate", "model.freeze_depth"

_MEANINGS: Mapping[str, tuple[str, str]] = {
    "energy_mae": ("energy error", "eV/atom"),
    "force_mae": ("force error", "eV/Å"),
    "stress_mae": ("stress error", "GPa"),
    "magmom_mae": ("magmom error", "μB"),
    "probe_force_mae": ("force error on the probe", "eV/Å"),
}


def write_report(config: SweepConfig, outcomes: Sequence[Outcome], summary: Mapping[str, Any], folder: Path) -> Path:
    """Write the page into the sweep's folder.

    Args:
        config: the sweep.
        outcomes: of all trials.
        summary: the sweep's summary.json.
        folder: the sweep's folder.
    """
    page = Page(
        f"Sweep {config.run.name}",
        f"{len(outcomes)} trials on {config.data.path}, weights from {config.model.init}; searcher"
        f" {config.sweep.searcher}, scheduler {config.sweep.scheduler.kind}. All errors are mean absolute errors.",
    )
    _overview(page.section("Result"), outcomes, summary)
    _ranking(page.section("Ranking"), config, outcomes)
    _space(page.section("Search space"), config, outcomes, summary["importance"])
    _curves(page.section("Learning curves"), config, outcomes)
    _cost(page.section("Time and cost"), config, outcomes)
    _stopped(page.section("Stopped and failed trials"), outcomes)
    if config.sweep.scheduler.kind == "pbt":
        _takeovers(page.section("Population"), outcomes)
    page.write(folder / REPORT_NAME)
    return folder / REPORT_NAME


def _overview(section: Section, outcomes: Sequence[Outcome], summary: Mapping[str, Any]) -> None:
    section.note(summary["verdict"])
    counts = summary["states"]
    section.tiles(
        {
            "trials": str(len(outcomes)),
            **{state: str(counts[state]) for state in ("finished", "pruned", "failed") if counts.get(state)},
            "epochs": f"{summary['epochs']:,}",
            "time of all trials": duration(summary["seconds"]),
        }
    )
    test = summary["best"]["test"]
    if not test:
        section.note("The data set has no test materials, so the best model is not measured on unseen ones.")
        return
    before = summary["untouched_test"]
    names = [name for name in _MEANINGS if name in test]
    rows: list[list[Cell]] = [
        [f"{_MEANINGS[name][0]} ({_MEANINGS[name][1]})", before.get(name), test[name]] for name in names
    ]
    columns = [Column("on the test materials"), Column("untouched model"), Column("best trial")]
    number = summary["best"]["num_test_records"]
    section.table(columns, rows, f"{number:,} test records, with which no trial was trained, stopped or chosen.")


def _ranking(section: Section, config: SweepConfig, outcomes: Sequence[Outcome]) -> None:
    columns = [
        Column("place"),
        Column("trial"),
        Column("values"),
        Column("state"),
        Column("epochs"),
        *(Column(*_MEANINGS[name]) for name in config.sweep.objectives),
        *([Column("score")] if len(config.sweep.objectives) > 1 else []),
    ]
    rows: list[list[Cell]] = []
    for place, one in enumerate(ranked(outcomes), start=1):
        figures: list[Cell] = list(one.objectives or [None] * len(config.sweep.objectives))
        if len(config.sweep.objectives) > 1:
            figures.append(one.score if math.isfinite(one.score) else None)
        rows.append([place, one.trial.number, values_text(one), one.trial.state, one.epochs, *figures])
    section.table(
        columns,
        rows,
        "Validation errors of each trial's best checkpoint. Several objectives are ranked by their geometric mean"
        " (score). Pruned trials stand below finished ones, since they had fewer epochs.",
    )


def _space(section: Section, config: SweepConfig, outcomes: Sequence[Outcome], importance: Mapping[str, float]) -> None:
    known = [one for one in outcomes if one.trial.role == "search" and math.isfinite(one.score)]
    if len(known) < 2:
        section.text("Fewer than two searched trials gave a result.")
        return
    score = Axis(*_MEANINGS[config.sweep.objectives[0]]) if len(config.sweep.objectives) == 1 else Axis("score")
    dimensions = {_axis(one): [_cell(trial.trial.values.get(one.key)) for trial in known] for one in config.dimensions}
    names = [f"trial {one.trial.number}" for one in known]
    section.figure(
        parallel(names, dimensions | {score: [one.score for one in known]}, score),
        "Each line is a trial. Drag along an axis to see only the trials that pass there.",
        wide=True,
    )
    if _RATE in {one.key for one in config.dimensions}:
        section.figure(
            scatter(_by_depth(known, config), Axis("learning rate", log=True), Axis(score.name, score.unit, log=True)),
            "Learning rate against error, by freeze depth. Pruned trials are shown with the error at which they were"
            " stopped.",
        )
    keys = list(importance)
    section.figure(
        bars(
            [key.rpartition(".")[2] for key in keys],
            {"share": [importance[key] for key in keys]},
            Axis("key"),
            Axis("share of the variance of the ranks"),
        ),
        f"What decides how good a trial gets: the share that each key explains by itself, beyond chance"
        f" ({len(known)} trials).",
    )


def _by_depth(known: Sequence[Outcome], config: SweepConfig) -> dict[str, Points]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for one in known:
        groups[f"freeze depth {one.trial.values.get(_DEPTH, config.model.freeze_depth)}"].append(one)
    return {
        name: Points(
            [one.trial.values.get(_RATE, config.optimizer.learning_rate) for one in groups[name]],
            [one.score for one in groups[name]],
            [f"trial {one.trial.number}, {one.trial.state}" for one in groups[name]],
        )
        for name in sorted(groups)
    }


def _curves(section: Section, config: SweepConfig, outcomes: Sequence[Outcome]) -> None:
    name = next((name for name in config.sweep.objectives if not name.startswith("probe_")), "energy_mae")
    shown = [one for one in ranked(outcomes) if len(one.curve) > 1][:_MOST_CURVES]
    series = {}
    for one in shown:
        epochs = [epoch for epoch in one.curve if name in epoch.errors]
        label = f"trial {one.trial.number} ({one.trial.state})"
        series[label] = Curve([epoch.epochs for epoch in epochs], [epoch.errors[name] for epoch in epochs])
    if not series:
        section.text("No trial came to its second validation.")
        return
    meaning, unit = _MEANINGS[name]
    most = f" The best {_MOST_CURVES} trials are shown." if len(outcomes) > _MOST_CURVES else ""
    section.figure(
        lines(series, Axis("epochs"), Axis(meaning, unit, log=True)),
        f"Validation error over the epochs; epoch 0 is before the first step.{most}",
        wide=True,
    )


def _cost(section: Section, config: SweepConfig, outcomes: Sequence[Outcome]) -> None:
    launcher = config.launcher
    first = min((one.trial.started for one in outcomes), default=0.0)
    columns = [
        Column("trial"),
        Column("began after", "s", ",.0f"),
        Column("time", "s", ",.0f"),
        Column("starts"),
        Column("epochs"),
        Column("time per epoch", "s"),
        Column("CPU hours", form=",.3g"),
    ]
    rows: list[list[Cell]] = []
    for one in outcomes:
        seconds = one.trial.seconds
        per_epoch = seconds / one.epochs if one.epochs else None
        hours = seconds * launcher.min_workers * launcher.cpus_per_worker / 3600
        begun = one.trial.started - first
        rows.append([one.trial.number, begun, seconds, one.trial.starts, one.epochs, per_epoch, hours])
    section.table(columns, rows, "Wall time of all starts of a trial; CPU hours are what it had reserved.")
    names = [str(one.trial.number) for one in outcomes]
    section.figure(
        bars(names, {"time": [one.trial.seconds for one in outcomes]}, Axis("trial"), Axis("time", "s")),
        "Time of each trial.",
    )


def _stopped(section: Section, outcomes: Sequence[Outcome]) -> None:
    stopped = [one for one in outcomes if one.trial.state in ("pruned", "failed")]
    if not stopped:
        section.text("Every trial ran to its end.")
        return
    rows: list[list[Cell]] = [
        [one.trial.number, values_text(one), one.trial.state, one.epochs, one.trial.error or "worse than others"]
        for one in stopped
    ]
    columns = [*map(Column, ("trial", "values", "state", "after epochs", "why"))]
    section.table(
        columns, rows, "Their checkpoints are kept; a failed trial's folder has the whole error in error.txt."
    )


def _takeovers(section: Section, outcomes: Sequence[Outcome]) -> None:
    rows: list[list[Cell]] = [
        [takeover["epochs"], one.trial.number, takeover["source"], point_text(takeover["values"])]
        for one in outcomes
        for takeover in one.trial.takeovers
    ]
    if not rows:
        section.text("No trial took over another one.")
        return
    columns = [Column("after epochs"), Column("trial"), Column("took over trial"), Column("and gave up")]
    note = "A trial's curve shows its own errors up to there, then those of the copy. Its values are the last ones."
    section.table(columns, sorted(rows, key=lambda row: (row[0], row[1])), note)


def _axis(dimension: Dimension) -> Axis:
    return Axis(dimension.key.rpartition(".")[2].replace("_", " "), log=dimension.kind == "log_uniform")


def _cell(value: Any) -> Cell:
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else str(value).lower()
