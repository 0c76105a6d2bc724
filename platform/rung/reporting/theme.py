"""Colours of every report: told apart with normal and colour-blind eyes, on a light and on a dark page."""

from typing import Final

LIGHT: Final = ("#0064a4", "#dd6a10", "#3d1f6b", "#12a07c", "#d070b0", "#7d1f1f")
"""Series on a light page. Any two differ clearly to normal, protanope, deuteranope and tritanope eyes, and each has a
contrast of at least 3:1 against the page."""

DARK: Final = ("#5ab4ec", "#ee7f3b", "#8a6fe8", "#bff2d4", "#d94f8c", "#f6d76b")
"""The same series on a dark page."""

LIGHT_PAGE: Final = "#ffffff"
DARK_PAGE: Final = "#15181d"

DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "5px,2px")
SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
"""Series differ by these too, so that nothing depends on colour alone; seven of each, so that with six colours a
combination comes back after 42 series."""

# Cividis (Nuñez, Anderton and Renslow 2018), which colour-blind eyes see as others do, at eleven even steps.
_SCALE: Final = (
    *((0, 34, 78), (8, 51, 112), (53, 69, 108), (79, 87, 108), (102, 105, 112), (125, 124, 120)),
    *((148, 142, 119), (174, 163, 113), (200, 184, 102), (229, 207, 82), (254, 232, 56)),
)

SCALE: Final = [[step / (len(_SCALE) - 1), f"rgb{colour}"] for step, colour in enumerate(_SCALE)]
"""Colour scale of heat maps, from few to many, as Plotly takes it."""


def scale_colour(share: float) -> str:
    """Colour of the scale at a share of its length: #rrggbb.

    Args:
        share: 0 for the smallest value, 1 for the largest.
    """
    position = min(max(share, 0.0), 1.0) * (len(_SCALE) - 1)
    below = min(int(position), len(_SCALE) - 2)
    part = position - below
    mixed = (round(a + (b - a) * part) for a, b in zip(_SCALE[below], _SCALE[below + 1], strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def contrast(first: str, second: str) -> float:
    """Contrast of two colours (#rrggbb) as WCAG 2 defines it, from 1 to 21."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def ink_on(background: str) -> str:
    """Black or white, whichever reads better on a colour (#rrggbb)."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))


def _luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
