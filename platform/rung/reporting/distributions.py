"""Charts of many numbers: binned here, so that a page stays small however many there are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rung.reporting.chart import Axis, Cell, Chart, colour, column, matrix, numbers, plain, rows
from rung.reporting.plots import Points, parity
from rung.reporting.theme import DASHES, SCALE

BINS: Final = 80
MOST_POINTS: Final = 5_000
"""More points than this are drawn as a density."""
_EDGE_SHARE: Final = 5e-4
"""Share of the values that may lie beyond each end of a histogram, so that a few outliers do not flatten it."""


@dataclass(frozen=True)
class Binned:
    """Numbers counted in bins.

    Attributes:
        edges: (bins + 1,) limits of the bins, rising; evenly spaced, on a logarithmic axis in the logarithm.
        counts: (bins,) by series.
        beyond: how many values are outside the bins, by series.
    """

    edges: NDArray[np.float64]
    counts: Mapping[str, NDArray[np.int64]]
    beyond: Mapping[str, int]


def bin_values(series: Mapping[str, ArrayLike], axis: Axis, bins: int = BINS, *, whole: bool = False) -> Binned:
    """Count numbers in bins that all series share.

    Args:
        series: finite numbers by name.
        axis: what they are; on a logarithmic one, values of zero or less lie outside the bins.
        bins: how many.
        whole: whether the bins reach from the smallest to the largest value; otherwise the outermost few are left out.
    """
    values = {name: np.asarray(numbers_, dtype=np.float64) for name, numbers_ in series.items()}
    inside = np.concatenate([v[v > 0] if axis.log else v for v in values.values()]) if values else np.zeros(0)
    share = 0.0 if whole else _EDGE_SHARE
    low, high = (1.0, 10.0)
    if inside.size:
        # The outer of two neighbours, so that nothing is left out of few values.
        low, high = np.quantile(inside, share, method="lower"), np.quantile(inside, 1 - share, method="higher")
    if axis.log:
        low, high = (low, high) if high > low else (low / 1.1, high * 1.1)
        edges = np.geomspace(low, high, bins + 1)
    else:
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
        edges = np.linspace(low, high, bins + 1)
    # Rounding in the logarithm must not push the extreme values out of their bins.
    edges[0], edges[-1] = low, high
    counts = {name: np.histogram(v, edges)[0].astype(np.int64) for name, v in values.items()}
    return Binned(edges, counts, {name: len(v) - int(counts[name].sum()) for name, v in values.items()})


def histogram(series: Mapping[str, ArrayLike], x: Axis, y: Axis, bins: int = BINS, *, whole: bool = False) -> Chart:
    """Outlines of the distributions of some series of numbers, in the same bins.

    Args:
        series: finite numbers by name; any amount.
        x: what they are.
        y: what is counted.
        bins: how many.
        whole: see `bin_values`.
    """
    binned = bin_values(series, x, bins, whole=whole)
    edges = _with_empty_ends(binned.edges, log=x.log)
    centres = np.sqrt(edges[:-1] * edges[1:]) if x.log else (edges[:-1] + edges[1:]) / 2
    low, high, centre = (f"{x.name}, {part}{f' ({x.unit})' if x.unit else ''}" for part in ("from", "to", "centre"))
    headers = {name: f"{y.title}, {name}" if len(series) > 1 else y.title for name in series}
    columns: dict[str, list[Cell]] = {low: numbers(edges[:-1]), high: numbers(edges[1:]), centre: numbers(centres)}
    columns |= {headers[name]: numbers(np.pad(counts, 1)) for name, counts in binned.counts.items()}
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plain(name),
            "x": column(centre),
            "y": column(headers[name]),
            "customdata": rows(low, high),
            # Half way between two centres is the limit of their bins, in the logarithm too.
            "line": {"shape": "hvh", "color": colour(at), "width": 1.5, "dash": DASHES[at % len(DASHES)]},
            "fill": "none" if y.log else "tozeroy",
            "fillcolor": colour(at, 0.22),
            "hovertemplate": f"%{{customdata[0]:.4g}} to %{{customdata[1]:.4g}} {plain(x.unit)}: "
            f"%{{y:,}}<extra>{plain(name)}</extra>",
        }
        for at, name in enumerate(series)
    ]
    layout = {
        "xaxis": x.layout(),
        "yaxis": y.layout(rangemode="tozero"),
        "showlegend": len(series) > 1,
        "hovermode": "x",
    }
    return Chart(columns=columns, traces=traces, layout=layout, note=_beyond(binned, y.name))


def density(x_values: ArrayLike, y_values: ArrayLike, x: Axis, y: Axis, counted: str, bins: int = BINS) -> Chart:
    """How many points lie where in a plane, as colours in the logarithm of the count.

    Args:
        x_values: (n,) finite coordinates; any amount.
        y_values: (n,) finite coordinates.
        x: what the first are.
        y: what the second are.
        counted: what the points are.
        bins: along each axis.
    """
    ends = [bin_values({"": v}, axis, bins).edges for v, axis in ((x_values, x), (y_values, y))]
    counts = np.histogram2d(np.asarray(x_values, float), np.asarray(y_values, float), ends)[0].T
    centres = [np.sqrt(e[:-1] * e[1:]) if a.log else (e[:-1] + e[1:]) / 2 for e, a in zip(ends, (x, y), strict=True)]
    value = f"log10 of {counted}"
    columns: dict[str, list[Cell]] = {
        f"{x.name}, centre{f' ({x.unit})' if x.unit else ''}": numbers(np.tile(centres[0], bins)),
        f"{y.name}, centre{f' ({y.unit})' if y.unit else ''}": numbers(np.repeat(centres[1], bins)),
        counted: numbers(counts.ravel().astype(np.int64)),
        value: numbers(np.log10(np.where(counts > 0, counts, np.nan)).ravel()),
    }
    trace = {
        "type": "heatmap",
        "x": numbers(centres[0]),
        "y": numbers(centres[1]),
        "z": matrix(value, bins),
        "customdata": matrix(counted, bins),
        "colorscale": SCALE,
        "colorbar": {"title": {"text": plain(value), "side": "right"}, "thickness": 12},
        "hovertemplate": f"%{{x:.4g}}, %{{y:.4g}}: %{{customdata:,}} {plain(counted)}<extra></extra>",
    }
    drawn = Chart(columns=columns, traces=[trace], layout={}, height=420)
    outside = len(np.asarray(x_values)) - int(counts.sum())
    note = f"Outside the axes: {outside:,} {counted}." if outside else ""
    return replace(drawn, layout={"xaxis": x.layout(), "yaxis": y.layout(), "hovermode": "closest"}, note=note)


def agreement(
    series: Mapping[str, Points], quantity: Axis, counted: str, x: str = "label", y: str = "prediction"
) -> Chart:
    """Two figures of the same things against each other: points on few, else how many lie where (first series alone).

    Args:
        series: finite coordinates by name.
        quantity: of both axes.
        counted: what the points are.
        x: what the horizontal axis shows of the quantity.
        y: what the vertical axis shows of it.
    """
    if sum(np.size(points.x) for points in series.values()) <= MOST_POINTS:
        return parity(series, quantity, x, y)
    points = next(iter(series.values()))
    axes = [Axis(f"{quantity.name}, {which}", quantity.unit) for which in (x, y)]
    return density(points.x, points.y, axes[0], axes[1], counted)


def _with_empty_ends(edges: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    """Add an empty bin at each end, so that the outline starts and ends on the ground."""
    if log:
        step = edges[1] / edges[0]
        return np.concatenate(([edges[0] / step], edges, [edges[-1] * step]))
    step = edges[1] - edges[0]
    return np.concatenate(([edges[0] - step], edges, [edges[-1] + step]))


def _beyond(binned: Binned, counted: str) -> str:
    beyond = {name: number for name, number in binned.beyond.items() if number}
    if not beyond:
        return ""
    each = " and ".join(
        f"{number:,} of {name}" if len(binned.counts) > 1 else f"{number:,}" for name, number in beyond.items()
    )
    return f"Outside the axis: {each} {counted}."
