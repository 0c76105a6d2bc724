"""Reduced formulas, the names that people know a composition by."""

import warnings
from collections.abc import Iterable
from functools import lru_cache

from pymatgen.core import Composition


def reduced_formula(atomic_numbers: Iterable[int], counts: Iterable[int]) -> str:
    """Reduced formula, in pymatgen's order of the elements.

    Args:
        atomic_numbers: of each element, once.
        counts: its atoms.

    Raises:
        ValueError: there is no such element.
    """
    return _reduced_formula(tuple(map(int, atomic_numbers)), tuple(map(int, counts)))


@lru_cache(maxsize=4096)
def _reduced_formula(atomic_numbers: tuple[int, ...], counts: tuple[int, ...]) -> str:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")  # noble gases; they are sorted last
        return Composition(dict(zip(atomic_numbers, counts, strict=True))).reduced_formula
