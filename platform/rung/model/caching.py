"""Functions that numba compiles, and whose machine code it keeps on disk where it finds a folder for it."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba


def cached(*parts: ModuleType, **options: Any) -> Callable[[Any], Any]:
    """A decorator: compile on the first call, or read what an earlier process compiled.

    Numba looks for a folder that it may write in NUMBA_CACHE_DIR, beside the source and below the home folder. In a
    container there may be none: then every process compiles.

    Args:
        parts: modules of functions that the function calls. Numba itself compiles again only when the function's own
            file has changed.
        options: of `numba.njit`.
    """

    def compiled(function: Any) -> Any:
        try:
            dispatcher: Any = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no such folder; numba says so before it compiles anything
            return numba.njit(**options)(function)
        if parts:
            file = dispatcher._cache._cache_file  # noqa: SLF001 -- numba has no public way to name more files
            file._source_stamp = (file._source_stamp, *map(_stamp, parts))  # noqa: SLF001
        return dispatcher

    return compiled


def _stamp(module: ModuleType) -> tuple[float, int]:
    status = Path(str(module.__file__)).stat()
    return status.st_mtime, status.st_size
