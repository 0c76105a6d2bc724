"""Pools of worker processes that start clean and never outlive the process that started them."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

# Workers start from a process of their own: a fork of this one would inherit CUDA's and Ray's threads half alive.
_CONTEXT: Final = multiprocessing.get_context("forkserver")


def worker_pool(
    workers: int, preload: Sequence[str], start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """Start a pool of processes.

    Args:
        workers: number of processes.
        preload: modules to import once, in the process that all workers are forked from.
        start: called with the arguments in each worker before its first task.
        arguments: of `start`.
    """
    _CONTEXT.set_forkserver_preload(list(preload))
    return ProcessPoolExecutor(workers, _CONTEXT, initializer=_start, initargs=(start, arguments))


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """Leave when the parent is gone: if it was killed, nobody else ends its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - workers are always started by another process
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
