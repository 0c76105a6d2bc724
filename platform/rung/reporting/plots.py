"""Charts of named points, curves, categories and many dimensions at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rung.reporting.chart import Axis, Cell, Chart, colour, column, numbers, plain, rows
from rung.reporting.theme import DASHES, SCALE, SYMBOLS


@dataclass(frozen=True)
class Points:
    """One series of a scatter plot: (n,) coordinates, and what each point is called."""

    x: ArrayLike
    y: ArrayLike
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Curve:
    """One line: (n,) coordinates, with the band around it where `low` and `high` are given.

    Attributes:
        x: places along the line.
        y: heights.
        low: lower end of the band.
        high: upper end of the band.
        markers: whether the places themselves are marked.
    """

    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    markers: bool = True


def scatter(series: Mapping[str, Points], x: Axis, y: Axis) -> Chart:
    """Points in a plane; the name of a point appears when it is pointed at."""
    names, xs, ys, labels = [], [], [], []
    for name, points in series.items():
        one = numbers(points.x)
        names += [name] * len(one)
        xs += one
        ys += numbers(points.y)
        labels += list(points.labels) if points.labels else [""] * len(one)
    columns: dict[str, Sequence[Cell]] = {"series": names, "name": labels, x.title: xs, y.title: ys}
    hover = f"%{{customdata[1]}}<br>{plain(x.title)}: %{{x:.5g}}<br>{plain(y.title)}: %{{y:.5g}}"
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": plain(name),
            "only": {"series": name},
            "x": column(x.title),
            "y": column(y.title),
            "customdata": rows("series", "name"),
            "hovertemplate": f"{hover}<extra>{plain(name)}</extra>",
            "marker": {"color": colour(at, 0.75), "size": 7, "symbol": SYMBOLS[at % len(SYMBOLS)]},
        }
        for at, name in enumerate(series)
    ]
    return Chart(columns=columns, traces=traces, layout=_axes(x, y, legend=len(series) > 1, closest=True))


def parity(series: Mapping[str, Points], quantity: Axis, x: str = "label", y: str = "prediction") -> Chart:
    """Points against the diagonal on which both agree; both axes have the same range.

    Args:
        series: what is compared, by name.
        quantity: of both axes.
        x: what the horizontal axis shows of the quantity.
        y: what the vertical axis shows of it.
    """
    across, up = (Axis(f"{quantity.name}, {which}", quantity.unit, quantity.log) for which in (x, y))
    drawn = scatter(series, across, up)
    both = np.array([v for title in (across.title, up.title) for v in drawn.columns[title] if v is not None], float)
    low, high = (both.min(), both.max()) if both.size else (0.0, 1.0)
    diagonal = {"type": "line", "x0": low, "x1": high, "y0": low, "y1": high, "layer": "below"}
    line = {"line": {"color": colour(0, 0.6), "dash": "dot", "width": 1.5}}
    layout: dict[str, Any] = dict(drawn.layout) | {"shapes": [diagonal | line]}
    layout["yaxis"] = layout["yaxis"] | {"scaleanchor": "x", "constrain": "domain"}
    layout["xaxis"] = layout["xaxis"] | {"constrain": "domain"}
    return Chart(columns=drawn.columns, traces=drawn.traces, layout=layout, height=460)


def lines(series: Mapping[str, Curve], x: Axis, y: Axis) -> Chart:
    """Curves, each with its confidence band where it has one."""
    columns: dict[str, list[Cell]] = {"series": [], x.title: [], y.title: []}
    low, high = f"{y.name}, low{_unit(y)}", f"{y.name}, high{_unit(y)}"
    banded = any(curve.low is not None for curve in series.values())
    columns |= {low: [], high: []} if banded else {}
    traces: list[dict[str, Any]] = []
    for at, (name, curve) in enumerate(series.items()):
        values = numbers(curve.y)
        columns["series"] += [name] * len(values)
        columns[x.title] += numbers(curve.x)
        columns[y.title] += values
        if banded:
            columns[low] += values if curve.low is None else numbers(curve.low)
            columns[high] += values if curve.high is None else numbers(curve.high)
        shared = {"type": "scatter", "only": {"series": name}, "x": column(x.title), "legendgroup": f"s{at}"}
        if curve.low is not None:
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            traces.append(shared | edge | {"y": column(low)})
            traces.append(shared | edge | {"y": column(high), "fill": "tonexty", "fillcolor": colour(at, 0.2)})
        traces.append(shared | _line(at, name, markers=curve.markers) | {"y": column(y.title)})
    return Chart(columns=columns, traces=traces, layout=_axes(x, y, legend=len(series) > 1))


def bars(
    categories: Sequence[str],
    series: Mapping[str, ArrayLike],
    x: Axis,
    y: Axis,
    *,
    stacked: bool = False,
    spreads: Mapping[str, ArrayLike] | None = None,
) -> Chart:
    """Bars over named categories.

    Args:
        categories: names, in the order of drawing.
        series: (len(categories),) heights by name.
        x: what the categories are.
        y: what the heights are.
        stacked: whether the bars of a category stand on each other, not side by side.
        spreads: (len(categories),) half lengths of the error bars by name of the series, for those that have them.
    """
    several = len(series) > 1
    headers = {name: f"{name}{_unit(y)}" if several else y.title for name in series}
    errors = {name: f"{headers[name]}, spread" for name in series if spreads and name in spreads}
    columns = {x.title: list(categories)} | {headers[name]: numbers(heights) for name, heights in series.items()}
    columns |= {header: numbers((spreads or {})[name]) for name, header in errors.items()}
    traces = [
        {
            "type": "bar",
            "name": plain(name),
            "x": column(x.title),
            "y": column(headers[name]),
            "marker": {"color": colour(at)},
            "hovertemplate": f"%{{x}}: %{{y:,.5g}} {plain(y.unit)}<extra>{plain(name)}</extra>",
        }
        | ({"error_y": {"type": "data", "array": column(errors[name])}} if name in errors else {})
        for at, name in enumerate(series)
    ]
    layout = _axes(x, y, legend=several) | {"barmode": "stack" if stacked else "group", "bargap": 0.25}
    layout["xaxis"] |= {"type": "category"}
    return Chart(columns=columns, traces=traces, layout=layout)


def parallel(names: Sequence[str], dimensions: Mapping[Axis, Sequence[Cell]], by: Axis) -> Chart:
    """Parallel coordinates: one line for each named thing, one axis for each of its properties; ranges can be brushed.

    Args:
        names: (n,) what is compared.
        dimensions: (n,) values by axis; numbers or text. A logarithmic axis shows powers of ten.
        by: the dimension that colours the lines; it holds numbers.
    """
    columns: dict[str, Sequence[Cell]] = {"name": list(names)}
    columns |= {axis.title: list(values) for axis, values in dimensions.items()}
    traces = [
        {
            "type": "parcoords",
            "dimensions": [
                {"label": plain(axis.title), "values": column(axis.title), "scale": "log" if axis.log else "linear"}
                for axis in dimensions
            ],
            "line": {
                "color": column(by.title),
                "colorscale": SCALE,
                "showscale": True,
                "colorbar": {"title": {"text": plain(by.title), "side": "right"}, "thickness": 12},
            },
        }
    ]
    return Chart(columns=columns, traces=traces, layout={"margin": {"l": 60, "r": 40, "t": 70, "b": 30}}, height=420)


def _line(at: int, name: str, *, markers: bool) -> dict[str, Any]:
    return {
        "name": plain(name),
        "mode": "lines+markers" if markers else "lines",
        "line": {"color": colour(at), "dash": DASHES[at % len(DASHES)], "width": 2},
        "marker": {"color": colour(at), "symbol": SYMBOLS[at % len(SYMBOLS)], "size": 6},
        "hovertemplate": f"%{{x:.5g}}: %{{y:.5g}}<extra>{plain(name)}</extra>",
    }


def _axes(x: Axis, y: Axis, *, legend: bool, closest: bool = False) -> dict[str, Any]:
    return {
        "xaxis": x.layout(),
        "yaxis": y.layout(),
        "showlegend": legend,
        "hovermode": "closest" if closest else "x",
    }


def _unit(axis: Axis) -> str:
    return f" ({axis.unit})" if axis.unit else ""
