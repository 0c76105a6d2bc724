"""One rank with a batch of 2 B does what two ranks with B each do: same errors, same weights, same gradients."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rung.config.load import to_yaml
from rung.config.tree import TrainConfig
from rung.training.context import LocalContext
from rung.training.run import RunFolder, TrainSummary
from rung.training.sinks import read_metrics
from rung.training.trainer import train

ROOT = Path(__file__).resolve().parents[2]


def config_of(data, storage, name, launcher):
    return TrainConfig.model_validate(
        {
            "run": {"name": name, "storage": str(storage)},
            "data": {"path": str(data)},
            "batch": {"structures": 7, "max_angles": 400},
            "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 3},
            "reference": {"mode": "scratch"},
            "optimizer": {"learning_rate": 3e-3, "clip_norm": 0.5, "ema_decay": 0.9},
            "training": {"epochs": 2, "log_every": 1},
            "launcher": {"kind": launcher},
            "tracking": {"kind": "off"},
        }
    )


def run_on_two_ranks(config, folder):
    path = folder / "two_ranks.yaml"
    path.write_text(to_yaml(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    command = [sys.executable, *launcher, str(ROOT / "jobs" / "pretrain.py"), "--config", str(path)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return TrainSummary.read(RunFolder.of(config).path / "summary.json")


def test_two_ranks_do_what_one_does(small_dataset, tmp_path):
    one = config_of(small_dataset, tmp_path, "one", "local")
    two = config_of(small_dataset, tmp_path, "two", "torchrun")
    expected = train(one, LocalContext("cpu"))
    found = run_on_two_ranks(two, tmp_path)
    assert found.steps == expected.steps

    for split, errors in expected.zero_step.items():
        assert found.zero_step[split] == pytest.approx(errors, rel=1e-6), (
            "errors before any step differ by rounding alone"
        )
    lines = {c: read_metrics(RunFolder.of(c).path / "metrics.jsonl") for c in (one, two)}
    for first, second in zip(lines[one], lines[two], strict=True):
        own = ("time/", "memory/", "num_ranks")
        plain = {key: value for key, value in first.items() if not key.startswith(own)}
        assert {key: second[key] for key in plain} == pytest.approx(plain, rel=1e-4), first["step"]

    weights = [RunFolder.of(c).load_state("last")["model"]["state_dict"] for c in (one, two)]
    for name, expected_weights in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected_weights, rtol=1e-4, atol=1e-6, msg=name)
