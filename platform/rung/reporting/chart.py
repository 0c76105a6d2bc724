"""A chart: columns of data, drawn by Plotly, and the same columns as the CSV that a reader downloads.

The page holds the CSV and nothing else of the data: the drawing takes its numbers from there. So what is downloaded is
what is seen.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rung.reporting.theme import LIGHT

Cell = str | int | float | None


@dataclass(frozen=True)
class Axis:
    """What is drawn along one direction.

    Attributes:
        name: the quantity.
        unit: its unit; empty where it has none.
        log: whether the axis is logarithmic.
    """

    name: str
    unit: str = ""
    log: bool = False

    @property
    def title(self) -> str:
        """Name and unit, for titles and headers."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def layout(self, **more: Any) -> dict[str, Any]:
        """The axis as Plotly takes it."""
        return {"title": {"text": plain(self.title)}} | ({"type": "log"} if self.log else {}) | more


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Something to draw.

    Attributes:
        columns: the data by header (with its unit), all of one length.
        traces: Plotly traces, which name their data by `column` and their colours by `colour`.
        layout: Plotly layout beyond the look that every chart shares.
        height: pixels.
        note: what the drawing leaves out; shown under the caption.

    Raises:
        ValueError: columns of different lengths, or traces that name none of them.
    """

    columns: Mapping[str, Sequence[Cell]]
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int = 360
    note: str = ""

    def __post_init__(self) -> None:
        lengths = {header: len(values) for header, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of a chart have one length; found {lengths}")
        missing = {name for trace in self.traces for name in _columns_named(trace)} - self.columns.keys()
        if missing:
            raise ValueError(f"traces name {sorted(missing)}, which are no columns; there are {sorted(self.columns)}")

    @property
    def text_columns(self) -> list[str]:
        """Headers of the columns that hold text."""
        return [header for header, values in self.columns.items() if any(isinstance(value, str) for value in values)]

    def csv(self) -> str:
        """The data as CSV with a header; numbers with seven digits, absent ones empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_csv_cell(value) for value in row] for row in zip(*self.columns.values(), strict=True))
        return out.getvalue()

    def to_json(self) -> str:
        """What the page's script draws, as JSON that is safe within a script element."""
        return script_json(
            {"csv": self.csv(), "text": self.text_columns, "traces": list(self.traces), "layout": dict(self.layout)}
        )


def column(header: str) -> dict[str, str]:
    """Refer to a column of the chart from a trace."""
    return {"$column": header}


def rows(*headers: str) -> dict[str, list[str]]:
    """Refer to several columns at once, as rows (Plotly's `customdata`)."""
    return {"$rows": list(headers)}


def matrix(header: str, width: int) -> dict[str, str | int]:
    """Refer to a column as a matrix of this width, row after row (the `z` of heat maps)."""
    return {"$matrix": header, "width": width}


def colour(number: int, alpha: float = 1.0) -> dict[str, float]:
    """Refer to the colour of a series; the reader's theme decides which it is.

    Args:
        number: of the series, from 0; colours repeat after six.
        alpha: opacity.
    """
    return {"$colour": number % len(LIGHT), "alpha": alpha}


def plain(text: str) -> str:
    """Text for Plotly, which would read markup in it."""
    return escape(text, quote=False)


def numbers(values: ArrayLike) -> list[Cell]:
    """A column of numbers; what is not finite becomes absent."""
    array = np.asarray(values)
    if np.issubdtype(array.dtype, np.integer):
        return array.tolist()
    return [value if math.isfinite(value) else None for value in array.astype(np.float64).tolist()]


def script_json(content: Any) -> str:
    """JSON that may stand within a script element: nothing in it can end or open one."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _csv_cell(value: Cell) -> Cell:
    return f"{value:.7g}" if isinstance(value, float) else value


def _columns_named(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in ("$column", "$matrix"):
                yield value
            elif key == "$rows":
                yield from value
            else:
                yield from _columns_named(value)
