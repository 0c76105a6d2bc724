"""Errors in words, for logs."""

from collections.abc import Mapping
from typing import Final

from rung.training.metrics import TARGETS

UNITS: Final = {"energy": ("meV/atom", 1000), "force": ("meV/Å", 1000), "stress": ("GPa", 1), "magmom": ("μB", 1)}
"""Unit in which people read the errors of a target, and the factor to it."""


def in_words(errors: Mapping[str, float]) -> str:
    """The mean absolute errors of the targets that have one, such as "energy 31 meV/atom, force 58 meV/Å".

    Args:
        errors: as `rung.training.metrics` names and measures them.
    """
    found = [(target, errors[f"{target}_mae"]) for target in TARGETS if f"{target}_mae" in errors]
    return ", ".join(f"{target} {_rounded(UNITS[target][1] * value)} {UNITS[target][0]}" for target, value in found)


def _rounded(value: float) -> str:
    """Three figures, and all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
