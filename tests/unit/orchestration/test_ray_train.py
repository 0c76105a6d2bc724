import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import ray

from rung.config.load import ConfigError
from rung.config.sections import LauncherConfig
from rung.orchestration.cluster import Cluster
from rung.orchestration.failures import FatalTrainingError
from rung.orchestration.interrupts import keeping_handlers
from rung.orchestration.ray_train import (
    _asking_to_stop,
    _environment,
    _fit_in_a_thread,
    _marking_fatal_errors,
    check_storage_is_shared,
)
from rung.training.run import DESCRIPTION_NAME, RunFolder
from rung.training.step import NonFiniteError


@pytest.mark.parametrize(
    ("error", "bad_input"),
    [
        (ConfigError("lower batch.structures"), True),
        (FileNotFoundError(2, "No such file", "/weights.pth.tar"), True),
        (NonFiniteError("step 3"), False),
    ],
)
def test_the_users_errors_are_fatal_and_keep_their_message(error, bad_input):
    with pytest.raises(FatalTrainingError) as caught, _marking_fatal_errors(rank=1):
        raise error
    assert caught.value.message == str(error)
    assert caught.value.bad_input == bad_input


@pytest.mark.parametrize("error", [KeyError("angle_sign"), ValueError("raised by a library")])
def test_our_own_mistakes_are_fatal_with_rank_and_traceback(error):
    with pytest.raises(FatalTrainingError) as caught, _marking_fatal_errors(rank=1):
        raise error
    assert not caught.value.bad_input
    assert "rank 1" in caught.value.message
    assert "test_ray_train.py" in caught.value.message


@pytest.mark.parametrize("error", [RuntimeError("Connection closed by peer"), OSError("stale file handle")])
def test_errors_that_a_restart_may_cure_pass_through(error):
    with pytest.raises(type(error)), _marking_fatal_errors(rank=0):
        raise error


def test_a_rank_that_does_not_see_the_storage_says_so(tmp_path):
    mark = tmp_path / ".started-1"
    mark.touch()
    check_storage_is_shared(mark, rank=3)
    mark.unlink()
    with pytest.raises(ValueError, match=r"rank 3 on .*run\.storage"):
        check_storage_is_shared(mark, rank=3)


def test_the_environment_is_lent_and_given_back(monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "7")
    monkeypatch.delenv("RAY_TRAIN_ENABLE_PRINT_PATCH", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
    with _environment(LauncherConfig(start_timeout=120, max_failures=2), Cluster(may_grow=True)):
        assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.1"  # the user's choice stays
        assert os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "40.0"  # three attempts within start_timeout
        assert os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] == "0"
        assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"
        assert "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER" not in os.environ
    with _environment(LauncherConfig(start_timeout=1200, num_workers=(1, 4)), Cluster(may_grow=False)):
        assert os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "60.0"
        assert os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "0"  # nobody takes the only node away
    assert os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] == "7"
    assert "RAY_TRAIN_ENABLE_PRINT_PATCH" not in os.environ
    assert "RAY_ADDRESS" not in os.environ


@pytest.fixture
def handler(make_config):
    """Ctrl-C's handler while a run goes on, and the run's folder."""
    config = make_config("r")
    folder = RunFolder.of(config)
    folder.write(DESCRIPTION_NAME, "{}")  # of an earlier start
    with keeping_handlers(), _asking_to_stop(config) as ask:
        signal.signal(signal.SIGINT, ask)
        yield folder


def test_ctrl_c_ends_a_run_whose_ranks_have_not_begun(handler):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not handler.stop_request.exists()


def test_ctrl_c_asks_ranks_to_save_and_a_second_one_ends_them(handler, caplog):
    time.sleep(0.01)
    handler.write(DESCRIPTION_NAME, "{}")
    signal.raise_signal(signal.SIGINT)
    assert handler.stop_request.exists()
    assert "Ctrl-C again ends them at once" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


class Trainer:
    """Takes Ctrl-C for itself where it may, as Ray's does."""

    def __init__(self, result):
        self.result, self.thread = result, None

    def fit(self):
        self.thread = threading.current_thread()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_a_fit_leaves_the_main_thread_to_signals():
    trainer = Trainer("result")
    assert _fit_in_a_thread(trainer) == "result"
    assert trainer.thread is not threading.main_thread()
    with pytest.raises(OSError, match="gone"):
        _fit_in_a_thread(Trainer(OSError("gone")))


def test_a_fit_in_another_thread_stays_there():
    trainer, found = Trainer("result"), []
    thread = threading.Thread(target=lambda: found.append(_fit_in_a_thread(trainer)))
    thread.start()
    thread.join()
    assert (found, trainer.thread) == (["result"], thread)
