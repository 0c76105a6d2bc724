"""Checkpoints written behind the back of the loop: one thread, one write at a time, errors told at the next step.

A state that was handed over is a copy in host memory, so training goes on while it is written, and also while the
storage refuses it. What waits meanwhile is the newest state and the best one; states that both of them supersede would
be pruned as soon as they were written.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from rung.training.checkpoint import CheckpointStore
from rung.training.metrics import Metrics
from rung.training.packing import PackedState
from rung.training.resilience.storage import insist


@dataclass(frozen=True)
class _Waiting:
    state: PackedState
    step: int
    metrics: Metrics
    best: bool


class CheckpointWriter:
    """Writes to a store from a thread of its own.

    Args:
        store: where to.
        patience: seconds that the storage may refuse (`faults.storage_patience`).
    """

    def __init__(self, store: CheckpointStore, patience: float) -> None:
        self._store = store
        self._patience = patience
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._busy = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, state: PackedState, step: int, metrics: Metrics, *, best: bool) -> None:
        """Take over a state; the other arguments are those of `CheckpointStore.save`.

        Raises:
            StorageError: an earlier state could not be written.
        """
        self.check()
        with self._changed:
            kept = [other for other in self._waiting if other.best and not best]
            self._waiting = [*kept[-1:], _Waiting(state, step, metrics, best)]
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="checkpoint-writer", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Tell of a write that failed since.

        Raises:
            StorageError: the storage refused for longer than the patience.
        """
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Return when everything is written.

        Raises:
            StorageError: it could not be.
        """
        self._when_idle(None)
        self.check()

    def close(self, seconds: float) -> None:
        """Give what is under way some seconds to end, whatever comes of it; for a run that fails for another reason."""
        self._when_idle(seconds)

    def _when_idle(self, seconds: float | None) -> None:
        idle: Callable[[], bool] = lambda: self._error is not None or not (self._busy or self._waiting)  # noqa: E731
        with self._changed:
            self._changed.wait_for(idle, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting))
                self._busy = True
                job = self._waiting.pop(0)
            try:
                insist(
                    lambda job=job: self._store.save(job.state, job.step, job.metrics, best=job.best),
                    f"the checkpoint of step {job.step} in {self._store.folder}",
                    self._patience,
                )
            except BaseException as error:  # noqa: BLE001 (told by check, in the thread that can stop the run)
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
