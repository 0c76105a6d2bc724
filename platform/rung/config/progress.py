"""How far a piece of work has come: a bar with the time left on a terminal, or told to whoever listens instead."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from multiprocessing import parent_process
from typing import Any, Final

from tqdm import tqdm

Listener = Callable[[str, int, int, str], None]
"""Is told what is done, how much of it is done, how much there is in all, and in which unit."""

_SHOWN_AFTER: Final = 2.0  # seconds; shorter work is not worth a bar
_TICK: Final = 1.0  # seconds
_SECOND: Final = "second"
_BY_TIME: Final = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, usually {total_fmt} s"

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


class LiveBar(tqdm):
    """A bar whose clock goes on while nothing is done, so that whoever looks sees that the program lives.

    Quiet where there is no terminal, and in worker processes, whose bars would stand in each other's way.

    Args:
        look: is called with the bar at every tick and in the end, to update it.
        options: of tqdm.
    """

    def __init__(self, *, look: Callable[["LiveBar"], None] | None = None, **options: Any) -> None:
        self._over = threading.Event()
        self._look = look
        self._clock = threading.Thread(target=self._tick, name="bar", daemon=True)
        super().__init__(disable=None if parent_process() is None else True, **options)
        if not self.disable:
            self._clock.start()

    def close(self) -> None:
        """Look a last time, and stop the clock."""
        if not self.disable:
            self._over.set()
            self._clock.join()
            if self._look is not None:
                self._look(self)
        super().close()

    def _tick(self) -> None:
        if self._over.wait(self.delay):
            return
        self.delay = 0  # else tqdm would not take away a bar that only the clock has drawn
        while not self._over.wait(_TICK):
            if self._look is not None:
                self._look(self)
            self.refresh()


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


@contextmanager
def waiting(what: str, usual: float) -> Iterator[None]:
    """Follow work whose parts cannot be counted: by its time, beside the time that it usually takes.

    Args:
        what: is done.
        usual: seconds that it takes; the bar stops short of its end if it takes longer.
    """
    over = threading.Event()
    seconds = max(round(usual), 1)
    with followed(what, seconds, _SECOND) as advance:

        def count() -> None:
            for _ in range(seconds - 1):
                if over.wait(_TICK):
                    return
                advance(1)

        clock = threading.Thread(target=count, name="waiting", daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()


def loading() -> AbstractContextManager[None]:
    """Follow the import of PyTorch and what comes with it, which takes long from a cold disk."""
    return waiting("loading PyTorch", 5)


def progress_bar(what: str, total: int, unit: str, *, done: int = 0, delay: float = 0.0) -> LiveBar:
    """A bar on stderr with the time left, which goes when it is closed; nothing where there is no terminal.

    Args:
        what: is done.
        total: amount of work.
        unit: see `followed`.
        done: amount that is done already.
        delay: seconds before it is drawn.
    """
    scaled = unit == "B"
    return LiveBar(
        desc=what,
        total=total,
        initial=done,
        unit=unit if scaled else f" {unit}s",
        unit_scale=scaled,
        bar_format=_BY_TIME if unit == _SECOND else None,
        dynamic_ncols=True,
        leave=False,
        delay=delay,
    )
