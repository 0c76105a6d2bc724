"""Signal handlers that are given back after a run, so that a notebook or a study keeps its own."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keeping_handlers() -> Iterator[bool]:
    """Restore the handlers of Ctrl-C and SIGTERM afterwards; yields whether this thread may set any."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield True
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
