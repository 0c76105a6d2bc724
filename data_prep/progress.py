"""What a person sees while a set is prepared: one bar with the time left, records per second and memory."""

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

import psutil

from data_prep.encode import Outcome
from data_prep.sources.base import Source
from data_prep.store import ShardStore
from rung.config.progress import LiveBar

_EVERY: Final = 256  # records between two looks


class Progress:
    """A bar over the source's own unit. Use as a context manager; quiet where there is no terminal."""

    def __init__(self, source: Source, store: ShardStore) -> None:
        self._source = source
        self._store = store
        self._seen = 0
        self._process = psutil.Process()
        _, total, unit = source.progress()
        self._bar = LiveBar(total=total, unit=unit, unit_scale=unit == "B", desc=source.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        self._bar.close()

    def watch(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """Pass outcomes on, and count them."""
        for outcome in outcomes:
            yield outcome
            self._seen += 1
            if self._seen % _EVERY == 0:
                self._show()

    def _show(self) -> None:
        if self._bar.disable:
            return
        done, _, _ = self._source.progress()
        rate = self._seen / max(self._bar.format_dict["elapsed"], 1e-3)
        kept, rejected = f"{self._store.num_kept:,} kept", f"{self._store.num_rejected:,} rejected"
        self._bar.set_postfix_str(f"{kept}, {rejected}, {rate:,.0f} records/s, {self._memory() / 1e9:.1f} GB")
        self._bar.update(done - self._bar.n)

    def _memory(self) -> int:
        """Resident bytes of this process and its workers."""
        total = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total
