"""What a person sees while an input is worked through: one bar with the time left, counts, rate and memory."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar

import psutil

from rung.config.progress import LiveBar

_Item = TypeVar("_Item")


class Progress:
    """A bar over the input's own unit. Use as a context manager; quiet where there is no terminal.

    Reading is ahead of the work by several chunks, so where the input stands is noted with each chunk, and shown when
    that chunk is done; only what an earlier start has done already is shown as it is read.

    Attributes:
        done: items that were done.
        skipped: items that an earlier start has done.

    Args:
        what: is done, or to what.
        position: of the input: how much is read, how much there is, and in which unit.
        counts: what came of it so far, in words.
    """

    def __init__(self, what: str, position: Callable[[], tuple[int, int, str]], counts: Callable[[], str]) -> None:
        self._what = what
        self._position = position
        self._counts = counts
        self._marks = deque[tuple[int, int]]()
        self._reached: int | None = None
        self._begin = time.monotonic()
        self._process = psutil.Process()
        self.done = self.skipped = 0

    def __enter__(self) -> Self:
        _, total, unit = self._position()
        self._bar = LiveBar(total=total, unit=unit, unit_scale=unit == "B", desc=self._what, look=self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def rate(self) -> float:
        """Items per second that were done."""
        return self.done / max(time.monotonic() - self._begin, 1e-9)

    def chunks(self, items: Iterator[_Item], size: int, skip: int) -> Iterator[list[_Item]]:
        """Read chunks of the items behind the first ones, which an earlier start has done."""
        self.skipped = sum(1 for _ in islice(items, skip))
        self._reached, _, _ = self._position()
        read = 0
        while chunk := list(islice(items, size)):
            read += len(chunk)
            self._marks.append((read, self._position()[0]))
            yield chunk

    def counted(self, outcomes: Iterable[_Item]) -> Iterator[_Item]:
        """Pass on what comes of the items, one for each, and count it."""
        for outcome in outcomes:
            yield outcome
            self.done += 1

    def _look(self, bar: LiveBar) -> None:
        while self._marks and self._marks[0][0] <= self.done:
            _, self._reached = self._marks.popleft()
        bar.set_postfix_str(f"{self._counts()}, {self.rate:,.0f}/s, {self._memory() / 1e9:.1f} GB", refresh=False)
        bar.update((self._position()[0] if self._reached is None else self._reached) - bar.n)

    def _memory(self) -> int:
        """Resident bytes of this process and its workers."""
        total = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total
