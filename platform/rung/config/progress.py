"""How far a piece of work has come: a bar with the time left on a terminal, or told to whoever listens instead."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from tqdm import tqdm

Listener = Callable[[str, int, int, str], None]
"""Is told what is done, how much of it is done, how much there is in all, and in which unit."""

_SHOWN_AFTER: Final = 2.0  # seconds; shorter work is not worth a bar

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tell the listener how far work of this thread has come, in place of showing it here."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def followed(what: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Follow a piece of work; quiet where there is no terminal, and while it takes less than two seconds.

    Args:
        what: is done.
        total: amount of work.
        unit: of the amounts, in the singular; "B" for bytes.

    Yields:
        a function to call with every amount that is done.
    """
    listener = _listener.get()
    if listener is None:
        with progress_bar(what, total, unit, delay=_SHOWN_AFTER) as bar:
            yield bar.update
        return
    done = 0

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        listener(what, done, total, unit)

    try:
        yield advance
    finally:
        listener(what, total, total, unit)


def progress_bar(what: str, total: int, unit: str, *, done: int = 0, delay: float = 0.0) -> "tqdm[Any]":
    """A bar on stderr with the time left, which goes when it is closed; nothing where there is no terminal."""
    scaled = unit == "B"
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit if scaled else f" {unit}s",
        unit_scale=scaled,
        dynamic_ncols=True,
        leave=False,
        delay=delay,
        disable=None,
    )
