"""A Ray run whose driver is told to leave, is killed with the head, or loses the head alone: each time it goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rung.config.load import to_yaml
from rung.config.tree import TrainConfig
from rung.training.run import RunFolder, TrainSummary
from tests.integration.faults.ranks import assert_same_weights, run_whole

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]


def config_of(name, storage, small_dataset):
    return TrainConfig.model_validate(
        {
            "run": {"name": name, "storage": str(storage)},
            "data": {"path": str(small_dataset)},
            "batch": {"structures": 2},
            "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
            "reference": {"mode": "scratch"},
            "training": {"epochs": 8, "checkpoint_every": 5, "log_every": 1},
            "launcher": {"kind": "ray", "num_workers": 2, "start_timeout": 180},
            "tracking": {"kind": "off"},
        }
    )


def start(config, folder):
    """Start the job, in a file of its own for what it says."""
    path = folder / "config.yaml"
    path.write_text(to_yaml(config))
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    log = (folder / "job.log").open("a")
    command = [sys.executable, str(ROOT / "jobs" / "pretrain.py"), "--config", str(path)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def wait_for_steps(config, process, more):
    """Until so many steps are logged beyond those there are."""
    path = RunFolder.of(config).path / "metrics.jsonl"

    def count():
        return path.read_text().count("gradient_norm") if path.exists() else 0

    before, deadline = count(), time.monotonic() + 600  # a start of Ray on a busy machine
    while count() < before + more:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ranks_and_head(process):
    """Of a driver that started the cluster. Ray's agents beside them take up to a minute to notice its end."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.name().startswith(("gcs_server", "raylet", "ray::RayTrain"))]


def by_terminal(process):
    """Ctrl-C goes to every process that the terminal's foreground has, Ray's among them."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("leave", [subprocess.Popen.terminate, by_terminal])
def test_a_signal_saves_and_leaves_and_a_killed_driver_costs_nothing(small_dataset, tmp_path, leave):
    """The driver started the cluster, so its end is that of the head."""
    config, whole = config_of("driver", tmp_path, small_dataset), config_of("whole", tmp_path, small_dataset)
    process = start(config, tmp_path)
    wait_for_steps(config, process, 3)
    leave(process)
    assert process.wait(120) == 0, (tmp_path / "job.log").read_text()
    summary = TrainSummary.read(RunFolder.of(config).path / "summary.json")
    assert not summary.completed
    assert summary.steps > 0
    assert RunFolder.of(config).checkpoints().steps()[-1] == summary.steps
    assert "the same command resumes from there" in (tmp_path / "job.log").read_text()

    process = start(config, tmp_path)
    wait_for_steps(config, process, 7)
    others = ranks_and_head(process)
    assert len(others) == 4, others
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(others, timeout=180)
    assert not alive
    process = start(config, tmp_path)
    assert process.wait(900) == 0, (tmp_path / "job.log").read_text()
    run_whole(whole, 2)
    assert_same_weights(config, whole)


def test_a_head_that_dies_alone_ends_the_driver_and_costs_nothing(small_dataset, tmp_path):
    """Without its head nothing can be saved but what is on storage: Ray ends driver and ranks after a minute."""
    config, whole = config_of("headless", tmp_path, small_dataset), config_of("whole", tmp_path, small_dataset)
    process = start(config, tmp_path)
    wait_for_steps(config, process, 7)
    others = ranks_and_head(process)
    (head,) = [each for each in others if each.name() == "gcs_server"]
    head.kill()
    assert process.wait(180) != 0
    assert "GCS may have been killed" in (tmp_path / "job.log").read_text()
    _, alive = psutil.wait_procs(others, timeout=180)
    assert not alive
    process = start(config, tmp_path)
    assert process.wait(900) == 0, (tmp_path / "job.log").read_text()
    run_whole(whole, 2)
    assert_same_weights(config, whole)
