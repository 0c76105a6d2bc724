"""Which rank the others wait for: each writes down the collective that it is about to enter.

A collective that times out says how long it took, not who was missing. All ranks enter the same collectives in the
same order, so the one whose count stands behind is the one that hangs. The counts lie in the store of the process
group, which a rank can read while another one hangs.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

logger = logging.getLogger(__name__)

_WARNED_AFTER: Final = 0.5
"""Share of the time-out after which the ranks that wait name the missing ones in the log; NCCL ends the process at the
time-out itself, and says nothing then."""


class HungRankError(RuntimeError):
    """A rank did not come to a collective in time; a restart goes on from the last checkpoint."""


class RollCall:
    """Counts the collectives of this rank, and compares with the others when one takes too long.

    Args:
        timeout: seconds after which a collective fails (`faults.collective_timeout`).
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._store = _get_default_store()
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()
        self._count = 0
        self._name = ""
        self._entered: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="roll-call", daemon=True)

    def start(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._thread.join()

    @contextmanager
    def collective(self, name: str) -> Iterator[None]:
        """Around a collective; the name is for messages.

        Raises:
            HungRankError: it timed out; names the ranks that did not come.
        """
        self._count += 1
        self._name, self._entered = name, time.monotonic()
        self._store.set(_key(self._rank), f"{self._count} {os.uname().nodename}")
        try:
            yield
        except RuntimeError as error:
            if time.monotonic() - self._entered > 0.9 * self._timeout:
                raise HungRankError(
                    f"{self._missing()} within {self._timeout:g} s (faults.collective_timeout): look at that node; the"
                    " same command resumes from the last checkpoint"
                ) from error
            raise
        finally:
            self._entered = None

    def _missing(self) -> str:
        behind = []
        for rank in range(self._world_size):
            count, host = self._entry(rank)
            if count < self._count:
                behind.append(f"rank {rank} ({host})")
        who = " and ".join(behind) or "no rank in particular"
        return f"{who} did not come to '{self._name}', where rank {self._rank} waits,"

    def _entry(self, rank: int) -> tuple[int, str]:
        """Count and host of a rank; the store lies with rank 0 and may be gone with it."""
        try:
            if not self._store.check([_key(rank)]):
                return 0, "not heard of yet"
            count, host = self._store.get(_key(rank)).decode().split(" ", 1)
        except RuntimeError:
            return (self._count, "") if rank else (0, "whose store does not answer")
        return int(count), host

    def _watch(self) -> None:
        warned = 0
        while not self._closing.wait(min(1.0, self._timeout / 10)):
            entered, count = self._entered, self._count
            if entered is None or count == warned:
                continue
            waited = time.monotonic() - entered
            if waited > _WARNED_AFTER * self._timeout:
                logger.warning("%s for %.0f s", self._missing(), waited)
                warned = count


def _key(rank: int) -> str:
    return f"rung/roll-call/{rank}"
