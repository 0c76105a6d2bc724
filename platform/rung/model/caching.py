"""Functions that numba compiles, and whose machine code it keeps on disk where it finds a folder for it."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from numba.core import event

from rung.config.progress import waiting

_USUAL = 10.0  # seconds that the longest function takes on a free core


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


class _Compilation(event.Listener):
    """Shows that functions of this package are compiled. A function and those that it calls are one compilation."""

    def __init__(self) -> None:
        self._depth = 0
        self._shown = ExitStack()

    def on_start(self, event: event.Event) -> None:
        """Compile, or compile for another."""
        if _is_ours(event):
            if self._depth == 0:
                self._shown.enter_context(waiting("compiling for this processor, once", _USUAL))
            self._depth += 1

    def on_end(self, event: event.Event) -> None:
        """Compiled."""
        if _is_ours(event):
            self._depth -= 1
            if self._depth == 0:
                self._shown.close()


def _is_ours(event: event.Event) -> bool:
    data: Any = event.data
    return data["dispatcher"].py_func.__module__.startswith("rung.")


event.register("numba:compile", _Compilation())


def _stamp(module: ModuleType) -> tuple[float, int]:
    status = Path(str(module.__file__)).stat()
    return status.st_mtime, status.st_size
