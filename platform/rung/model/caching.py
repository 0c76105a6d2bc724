"""Functions that numba compiles, and whose machine code it keeps on disk where it finds a folder for it."""

from collections.abc import Callable
from typing import Any

import numba


def cached(**options: Any) -> Callable[[Any], Any]:
    """A decorator: compile on the first call, or read what an earlier process compiled.

    Numba looks for a folder that it may write in NUMBA_CACHE_DIR, beside the source and below the home folder. In a
    container there may be none: then every process compiles.

    Args:
        options: of `numba.njit`.
    """

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no such folder; numba says so before it compiles anything
            return numba.njit(**options)(function)

    return compiled
