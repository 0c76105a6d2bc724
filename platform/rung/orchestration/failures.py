"""Which errors of a worker end a run at once, and how any error of a run reaches the user as one message.

Ray Train's controller imports this module, so it must stay light: no torch, no chgnet.
"""

import logging
from collections.abc import Mapping

from ray.train import ControllerError, TrainingFailedError, UserCallback, WorkerGroupError

logger = logging.getLogger(__name__)


_LOST_PEER = ("Connection reset by peer", "Connection closed by peer", "remote process exited")
"""What Gloo and NCCL say when another rank is gone."""


class FatalTrainingError(Exception):
    """A worker's error that must end the run. Holds plain values alone, so every process can unpickle it."""

    def __init__(self, message: str, *, bad_input: bool) -> None:
        super().__init__(message)
        self.message = message
        self.bad_input = bad_input

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.message, self.bad_input)


def _rebuild(message: str, bad_input: bool) -> FatalTrainingError:
    return FatalTrainingError(message, bad_input=bad_input)


class LaunchError(RuntimeError):
    """A run that Ray could not start or carry on; the message says why and what to do."""


class FailureGuard(UserCallback):
    """On Ray Train's controller: stops the run at a fatal error, and tells the user about every other one.

    An exception raised here is the one thing that Ray Train does not answer with a restart of the workers.
    """

    def __init__(self, max_failures: int) -> None:
        self._max_failures = max_failures
        self._failures = 0
        self._announced: set[str] = set()

    def after_exception(self, run_context: object, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ARG002
        """Look at what the workers raised, by rank."""
        for error in worker_exceptions.values():
            if isinstance(error, FatalTrainingError):
                raise error
        taken = {rank: str(_cause(error)) for rank, error in worker_exceptions.items() if _is_preempted(error)}
        if taken:
            self._tell_once(taken)
            return
        self._failures += 1
        if self._failures <= self._max_failures:
            logger.warning(
                "%s. Restarting from the last checkpoint (restart %d of at most %d, launcher.max_failures)",
                describe(worker_exceptions),
                self._failures,
                self._max_failures,
            )

    def _tell_once(self, taken: Mapping[int, str]) -> None:
        """Announce a restart after a preemption; Ray Train calls again and again until the node's time is up."""
        if not self._announced.issuperset(taken.values()):
            self._announced.update(taken.values())
            logger.warning(
                "rank %s was lost with its node, as announced. Restarting from the last checkpoint (such restarts do"
                " not count as failures)",
                ", ".join(map(str, sorted(taken))),
            )


def _cause(error: Exception) -> Exception:
    return getattr(error, "health_check_failure", error)


def _is_preempted(error: Exception) -> bool:
    """Whether a rank died because its node was taken away after a notice."""
    return bool(getattr(_cause(error), "preempted", False))


def describe(failures: Mapping[int, Exception]) -> str:
    """One line for what went wrong on which ranks; ranks that only lost their peer are left out."""
    lost = {rank: error for rank, error in failures.items() if hasattr(error, "health_check_failure")}
    shown = lost or failures
    first = next(iter(shown.values()))
    cause = _cause(first)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    ranks = ", ".join(str(rank) for rank in sorted(shown))
    reason = f"{type(cause).__name__}: {lines[0].rstrip('.') if lines else 'no message'}"
    if lost:
        return f"rank {ranks} was lost: {reason}"
    if any(sign in reason for sign in _LOST_PEER):  # the peer's end is not known to Ray yet
        return f"rank {ranks} lost its connection to another rank, which was killed or whose node is gone: {reason}"
    return f"rank {ranks} failed: {reason}"


def as_user_error(error: TrainingFailedError, shortage: str | None) -> Exception:
    """The exception to raise instead of Ray's.

    Args:
        error: what `fit` raised.
        shortage: why the cluster cannot hold the ranks now, if it cannot.
    """
    if isinstance(error, WorkerGroupError):
        return LaunchError(
            f"{describe(error.worker_failures)}, and all restarts (launcher.max_failures) are used up."
            " The same command resumes from the last checkpoint"
        )
    cause = error.controller_failure if isinstance(error, ControllerError) else error
    if isinstance(cause, FatalTrainingError):
        return ValueError(cause.message) if cause.bad_input else LaunchError(cause.message)
    if "Startup" in type(cause).__name__:
        reason = shortage or f"the cluster has the resources, but they did not become free ({cause})"
        return LaunchError(f"the ranks did not start within launcher.start_timeout: {reason}")
    return LaunchError(f"Ray Train failed: {type(cause).__name__}: {cause}")
