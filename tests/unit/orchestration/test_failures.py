import logging
import pickle

import pytest
from ray.train import ControllerError, WorkerGroupError

from rung.orchestration.failures import (
    FailureGuard,
    FatalTrainingError,
    LaunchError,
    as_user_error,
    describe,
)


class LostWorkerError(Exception):
    """Looks like Ray's report of a dead worker."""

    def __init__(self, cause):
        super().__init__("A worker health check failed.")
        self.health_check_failure = cause


class StartupTimeoutError(Exception):
    """Looks like Ray's report of a worker group that did not start."""


def test_fatal_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(FatalTrainingError("message", bad_input=True)))
    assert (error.message, error.bad_input) == ("message", True)


def test_the_guard_ends_the_run_at_a_fatal_error_whatever_else_failed():
    fatal = FatalTrainingError("message", bad_input=True)
    with pytest.raises(FatalTrainingError):
        FailureGuard(3).after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: fatal})


def test_the_guard_announces_each_restart_and_not_the_last_failure(caplog):
    guard = FailureGuard(max_failures=1)
    with caplog.at_level(logging.WARNING):
        guard.after_exception(None, {1: LostWorkerError(OSError("The actor died\nnode: x"))})
        guard.after_exception(None, {1: LostWorkerError(OSError("The actor died\nnode: x"))})
    assert len(caplog.messages) == 1
    assert "rank 1 was lost: OSError: The actor died" in caplog.messages[0]
    assert "restart 1 of at most 1" in caplog.messages[0]


def test_ranks_that_only_lost_their_peer_are_left_out():
    failures = {0: RuntimeError("Connection closed by peer"), 2: LostWorkerError(OSError("The actor died"))}
    assert describe(failures) == "rank 2 was lost: OSError: The actor died"
    assert describe({0: RuntimeError("CUDA error")}) == "rank 0 failed: RuntimeError: CUDA error"


def test_a_rank_that_only_lost_its_peer_says_so():
    said = describe({0: RuntimeError("[pair.cc:537] Read error [10.0.0.2]:37101: Connection reset by peer. This is")})
    assert said.startswith("rank 0 lost its connection to another rank, which was killed or whose node is gone: Runti")


class PreemptedError(Exception):
    """Looks like Ray's report of an actor whose node was drained."""

    preempted = True


def test_a_preemption_is_announced_once_and_is_no_failure(caplog):
    guard = FailureGuard(max_failures=1)
    with caplog.at_level(logging.WARNING):
        for actor in ("a", "a", "a", "b"):  # Ray Train looks on until the deadline; then comes another one
            guard.after_exception(None, {0: RuntimeError("x"), 1: LostWorkerError(PreemptedError(f"actor {actor}"))})
        guard.after_exception(None, {1: LostWorkerError(OSError("The actor died"))})
    assert ["as announced" in message for message in caplog.messages] == [True, True, False]
    assert "rank 1 was lost with its node" in caplog.messages[0]
    assert "restart 1 of at most 1" in caplog.messages[2]


def test_a_users_error_comes_back_as_the_same_value_error():
    error = as_user_error(ControllerError(FatalTrainingError("lower batch.structures", bad_input=True)), None)
    assert type(error) is ValueError
    assert str(error) == "lower batch.structures"


def test_our_mistake_comes_back_as_launch_error_with_traceback():
    error = as_user_error(ControllerError(FatalTrainingError("rank 0 failed:\nTraceback", bad_input=False)), None)
    assert isinstance(error, LaunchError)
    assert "Traceback" in str(error)


def test_used_up_restarts_name_the_key_and_how_to_go_on():
    error = as_user_error(WorkerGroupError("text", {1: LostWorkerError(OSError("The actor died"))}), None)
    assert isinstance(error, LaunchError)
    for part in ("rank 1 was lost", "launcher.max_failures", "same command resumes"):
        assert part in str(error)


@pytest.mark.parametrize(("shortage", "part"), [("the run asks for 8 ranks", "8 ranks"), (None, "did not become free")])
def test_a_start_that_timed_out_says_what_is_missing(shortage, part):
    error = as_user_error(ControllerError(StartupTimeoutError("150 s")), shortage)
    assert isinstance(error, LaunchError)
    assert "launcher.start_timeout" in str(error)
    assert part in str(error)
