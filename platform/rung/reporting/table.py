"""Tables: numbers aligned and with their unit in the header, sortable by the reader, downloadable as CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rung.reporting.chart import Cell

_SHORT = 28  # characters


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the quantity.
        unit: of its numbers.
        form: format of its numbers, as of `format`.
    """

    name: str
    unit: str = ""
    form: str = ",.4g"

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def table_html(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], caption: str, file: str) -> str:
    """A table as HTML.

    Args:
        columns: in order.
        rows: one cell for each column; None shows as a dash.
        caption: what the table shows.
        file: name of its CSV, without the ending.

    Raises:
        ValueError: a row has another number of cells.
    """
    wrong = [row for row in rows if len(row) != len(columns)]
    if wrong:
        raise ValueError(f"a row of this table has {len(columns)} cells; found {wrong[0]}")
    numeric = [any(isinstance(row[at], int | float) for row in rows) for at in range(len(columns))]
    head = "".join(
        f'<th scope="col"{_right(is_number)}><button type="button">{escape(column.title)}</button></th>'
        for column, is_number in zip(columns, numeric, strict=True)
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(v, c, right=n) for v, c, n in zip(row, columns, numeric, strict=True))}</tr>"
        for row in rows
    )
    return (
        f'<div class="table wide" data-file="{escape(file)}">\n<div class="scroll" tabindex="0" role="region"'
        f' aria-label="{escape(caption)}"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
        '<button type="button" class="csv">CSV</button>\n</div>'
    )


def _right(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _cell(value: Cell, column: Column, *, right: bool) -> str:
    if value is None:
        return f'<td{_right(right)} data-value="">\u2013</td>'
    if isinstance(value, str):
        # A name is not broken at its hyphens.
        short = ' class="short"' if len(value) <= _SHORT else ""
        return f"<td{_right(right) or short}>{escape(value)}</td>"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:{column.form}}"
    shown = shown.replace("-", "\u2212")
    return f'<td{_right(right)} data-value="{value!r}">{shown}</td>'
