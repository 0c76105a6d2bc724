"""Many runs: what stops one of them stops them all."""

import os
import signal

import pytest

from rung.orchestration.many_runs import run_all, train_one
from rung.training import trainer
from rung.training.run import RunFolder


def test_a_signal_after_the_last_step_ends_the_study_and_not_the_run(make_config, monkeypatch):
    configs = [make_config(name, training={"epochs": 1}) for name in ("first", "second")]
    original = trainer._finish

    def signalled(session):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(session)

    monkeypatch.setattr(trainer, "_finish", signalled)
    with pytest.raises(KeyboardInterrupt):
        list(run_all(train_one, configs, at_a_time=None))
    assert (RunFolder.of(configs[0]).path / "summary.json").exists()
    assert not RunFolder.of(configs[1]).path.exists()
    monkeypatch.undo()
    assert all(summary.completed for summary in run_all(train_one, configs, at_a_time=None))
