"""A number for each element, as colours over the periodic table. Plain HTML: it prints, and needs no script."""

import math
from collections.abc import Mapping
from html import escape
from typing import Final

from rung.reporting.chart import Axis
from rung.reporting.theme import ink_on, scale_colour

_ROWS: Final = (
    "H . . . . . . . . . . . . . . . . He",
    "Li Be . . . . . . . . . . B C N O F Ne",
    "Na Mg . . . . . . . . . . Al Si P S Cl Ar",
    "K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr",
    "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe",
    "Cs Ba Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn",
    "Fr Ra Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og",
    "",
    ". . La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb . .",
    ". . Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No . .",
)

PLACES: Final[Mapping[str, tuple[int, int]]] = {
    symbol: (row, place)
    for row, symbols in enumerate(_ROWS, start=1)
    for place, symbol in enumerate(symbols.split(), start=1)
    if symbol != "."
}
"""Row and column of each element, from 1; lanthanides and actinides stand below."""

_LAST_WITHOUT_VALUE: Final = (*_ROWS[6].split()[2:], *_ROWS[9].split()[8:])
"""Elements drawn only where they have a value: hardly a data set has them."""


def periodic_table_html(values: Mapping[str, float], value: Axis, caption: str, file: str) -> str:
    """A periodic table whose colours show a number for each element.

    Args:
        values: by symbol; elements that are missing are drawn empty.
        value: what the numbers are; logarithmic if they span decades (zero is then drawn empty).
        caption: what the table shows.
        file: name of its CSV, without the ending.

    Raises:
        ValueError: a symbol is none of an element.
    """
    unknown = sorted(values.keys() - PLACES.keys())
    if unknown:
        raise ValueError(f"no element has the symbol {unknown[0]!r}")
    drawn = {
        symbol: number for symbol, number in values.items() if math.isfinite(number) and (number > 0 or not value.log)
    }
    places = [symbol for symbol in PLACES if symbol in drawn or symbol not in _LAST_WITHOUT_VALUE]
    low, high = (min(drawn.values()), max(drawn.values())) if drawn else (0.0, 1.0)
    cells = "\n".join(
        _cell(symbol, drawn.get(symbol), _share(drawn.get(symbol), low, high, log=value.log), value)
        for symbol in places
    )
    swatches = ", ".join(scale_colour(step / 10) for step in range(11))
    legend = (
        f'<div class="legend"><span>{_short(low)}</span><span class="ramp" style="background:linear-gradient(to right,'
        f' {swatches})"></span><span>{_short(high)}</span><span>{escape(value.title)}'
        f"{', logarithmic' if value.log else ''}</span></div>"
    )
    return (
        f'<figure class="elements wide" data-file="{escape(file)}">\n'
        f'<div class="grid" role="list">\n{cells}\n</div>\n{legend}\n'
        f'<figcaption>{escape(caption)} <button type="button" class="csv">CSV</button></figcaption>\n'
        "</figure>"
    )


def _share(number: float | None, low: float, high: float, *, log: bool) -> float:
    if number is None or high <= low:
        return 1.0
    if log:
        return math.log(number / low) / math.log(high / low)
    return (number - low) / (high - low)


def _cell(symbol: str, number: float | None, share: float, value: Axis) -> str:
    row, place = PLACES[symbol]
    where = f"grid-area:{row}/{place}"
    if number is None:
        return f'<div class="none" role="listitem" style="{where}" title="{symbol}: none"><b>{symbol}</b></div>'
    background = scale_colour(share)
    title = f"{symbol}: {number:,.6g} {value.unit}".strip()
    return (
        f'<div role="listitem" style="{where};background:{background};color:{ink_on(background)}"'
        f' title="{escape(title)}" data-symbol="{symbol}" data-value="{number!r}" data-header="{escape(value.title)}">'
        f"<b>{symbol}</b><i>{_short(number)}</i></div>"
    )


def _short(number: float) -> str:
    """A number in at most about five characters."""
    size = abs(number)
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{number / limit:.3g}{suffix}" if suffix != "k" else f"{number / 1e3:.3g}k"
    text = f"{number:.0f}" if float(number).is_integer() else f"{number:.3g}"
    return text.replace("-", "\u2212")
