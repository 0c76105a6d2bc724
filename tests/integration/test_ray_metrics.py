"""What Prometheus would find at the endpoint of a node while a run goes on."""

import time
import urllib.request

import pytest
import ray

from rung.config.tree import TrainConfig
from rung.orchestration.ray_metrics import GAUGES, STEP_GAUGES, RayMetricsSink
from rung.training.sinks import RunDescription

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0)
class Rank:
    """A process on the cluster that keeps the gauges alive."""

    def __init__(self, config):
        self._sink = RayMetricsSink()
        tree = TrainConfig.model_validate(config)
        about = {
            "folder": None,
            "manifest_hash": "",
            "manifest": {},
            "reference": {},
            "num_parameters": 1,
            "versions": {},
        }
        self._sink.start(RunDescription(config=tree, first_step=0, total_steps=10, **about))
        self._sink.log({**dict.fromkeys(GAUGES, 1.5), "train/other": 1.0}, 7)


def test_every_gauge_is_exported_with_its_run(ray_cluster):
    rank = Rank.remote({"data": {"path": "/data"}, "run": {"name": "watched"}})
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    expected = {f"ray_{name}" for name, _ in GAUGES.values()} | {f"ray_{name}" for name in STEP_GAUGES}
    deadline = time.monotonic() + 90
    while True:
        lines = urllib.request.urlopen(address, timeout=10).read().decode().splitlines()
        found = {line.partition("{")[0]: line for line in lines if line.startswith("ray_rung_")}
        if found.keys() >= expected:
            break
        assert time.monotonic() < deadline, found.keys()
        time.sleep(1)
    assert all('run="watched"' in line for line in found.values())
    assert found["ray_rung_step"].split()[-1] == "7.0"
    assert found["ray_rung_train_loss"].split()[-1] == "1.5"
    ray.kill(rank)
