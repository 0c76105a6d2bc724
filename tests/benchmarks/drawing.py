"""Plots of the benchmarks' figures as SVG: the same figures give the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from rung.reporting.theme import LIGHT

_STYLE = {"svg.hashsalt": "rung", "svg.fonttype": "none", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}
_MARKERS = "osD^Xv*"

Spread = tuple[float, float]
"""Mean and spread."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        y: name and unit of the heights.
        series: by name, mean and spread at each place.
        x: places along the horizontal axis, by series; bars have none.
    """

    y: str
    series: Mapping[str, Sequence[Spread]]
    x: Mapping[str, Sequence[float]] | None = None


@dataclass(frozen=True)
class Named:
    """Points with names: (n,) coordinates, and which of them are named."""

    x: Sequence[float]
    y: Sequence[float]
    names: Sequence[str]


def draw_bars(panels: Sequence[Panel], categories: Sequence[str], title: str, path: Path) -> None:
    """Bars with the spread over seeds, side by side for each series; logarithmic where they differ tenfold."""
    with mpl.rc_context(_STYLE):
        figure, all_axes = _figure(len(panels), title)
        for axes, panel in zip(all_axes, panels, strict=True):
            width = 0.8 / len(panel.series)
            for at, (name, pairs) in enumerate(panel.series.items()):
                places = np.arange(len(categories)) + (at - (len(panel.series) - 1) / 2) * width
                mean, spread = np.array(pairs).T
                axes.bar(places, mean, width, yerr=spread, label=name, color=LIGHT[at], capsize=2)
            means = [mean for pairs in panel.series.values() for mean, _ in pairs]
            axes.set(ylabel=panel.y)
            if max(means) > 10 * min(means):
                axes.set_yscale("log")
                axes.set_ylim(bottom=min(means) / 2)
            axes.set_xticks(np.arange(len(categories)), categories, rotation=20)
            _finish(axes, legend=len(panel.series) > 1)
        _save(figure, path)


def draw_curves(panels: Sequence[Panel], x: str, title: str, path: Path) -> None:
    """Curves with the spread over seeds, both axes logarithmic."""
    with mpl.rc_context(_STYLE):
        figure, all_axes = _figure(len(panels), title)
        for axes, panel in zip(all_axes, panels, strict=True):
            for at, (name, pairs) in enumerate(panel.series.items()):
                mean, spread = np.array(pairs).T
                places = (panel.x or {})[name]
                axes.errorbar(
                    places, mean, spread, label=name, color=LIGHT[at], marker=_MARKERS[at], capsize=2, linewidth=1.5
                )
            axes.set(xlabel=x, ylabel=panel.y, xscale="log", yscale="log")
            known = sorted({place for places in (panel.x or {}).values() for place in places})
            axes.set_xticks(known, [f"{place:g}" for place in known])
            axes.xaxis.set_minor_formatter(NullFormatter())
            _finish(axes, legend=True)
        _save(figure, path)


def draw_named(panels: Mapping[str, Mapping[str, Named]], x: str, y: str, path: Path) -> None:
    """Points against the diagonal, in panels by title; named points bear their names."""
    with mpl.rc_context(_STYLE):
        figure, all_axes = _figure(len(panels), "", height=4.6)
        for axes, (title, series) in zip(all_axes, panels.items(), strict=True):
            both = np.concatenate([np.asarray([*points.x, *points.y]) for points in series.values()])
            ends = [both.min(), both.max()]
            axes.plot(ends, ends, color="grey", linewidth=1, linestyle="dotted")
            for at, (name, points) in enumerate(series.items()):
                axes.scatter(points.x, points.y, label=name, color=LIGHT[at], marker=_MARKERS[at], s=18)
                for px, py, label in zip(points.x, points.y, points.names, strict=True):
                    axes.annotate(label, (px, py), textcoords="offset points", xytext=(5, -3), fontsize=8)
            axes.set(xlabel=x, ylabel=y, title=title)
            axes.legend(fontsize=8)
        _save(figure, path)


def _figure(panels: int, title: str, height: float = 3.8) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.8 * panels, height), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes: Any = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def _finish(axes: Axes, *, legend: bool) -> None:
    """Plain numbers on an axis of heights that is logarithmic."""
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    if legend:
        axes.legend(fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
