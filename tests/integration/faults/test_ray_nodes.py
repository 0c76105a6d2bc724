"""Nodes that are taken away and nodes that join, in a Ray cluster of several nodes on this machine."""

import socket
import threading
import time

import pytest
import ray
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.train.v2._internal.execution.context import get_train_context as get_internal_train_context

from rung.config.tree import TrainConfig
from rung.orchestration import ray_train
from rung.orchestration.ray_train import run_on_ray
from rung.training.distributed import gather_text
from rung.training.run import RunFolder
from rung.training.trainer import train
from tests.integration.faults.ranks import (
    assert_each_record_once_per_epoch,
    assert_same_weights,
    distance,
    note_records,
    run_whole,
    trained_on,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NOTICE_SECONDS = 6


class Cluster:
    """A head without room for ranks, and nodes with room for one rank each."""

    def __init__(self):
        from ray.cluster_utils import Cluster as RayCluster

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
        self._cluster = RayCluster(initialize_head=True, head_node_args=head)
        self._nodes = {}
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    def have(self, nodes):
        """Have so many nodes, whatever happened before."""
        while len(self._nodes) < nodes:
            self.add_node()
        while len(self._nodes) > nodes:
            self.lose(next(iter(self._nodes)))

    def add_node(self):
        node = self._cluster.add_node(num_cpus=1)
        self._nodes[node.node_id] = node
        self._look()

    def lose(self, node_id):
        self._cluster.remove_node(self._nodes.pop(node_id), allow_graceful=False)
        while any(node["Alive"] for node in ray.nodes() if node["NodeID"] == node_id):
            time.sleep(0.1)
        self._look()

    def notify(self, node_id):
        """Announce, as a cloud does, that the node will be taken away."""
        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int(1000 * (time.time() + NOTICE_SECONDS))
        accepted, why_not = ray._raylet.GcsClient(address=self._cluster.address).drain_node(
            node_id, reason, "spot", deadline
        )
        assert accepted, why_not

    def _look(self):
        """Have Ray count its nodes, which it does every 20 s."""
        ray.get(get_or_create_autoscaling_coordinator()._tick.remote())

    def close(self):
        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    if ray.is_initialized():
        pytest.skip("this process is connected to another cluster: run these tests first, or alone")
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def make(small_dataset, tmp_path, monkeypatch):
    """Make the config of a small run."""
    monkeypatch.setattr(ray_train, "_RESIZE_SECONDS", 1.0)
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1")
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.2")

    def make_config(name, num_workers=2):
        tree = {
            "run": {"name": name, "storage": str(tmp_path)},
            "data": {"path": str(small_dataset)},
            "batch": {"structures": 4},
            "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
            "reference": {"mode": "scratch"},
            "training": {"epochs": 4, "checkpoint_every": 5, "log_every": 2, "deterministic": True},
            "launcher": {"num_workers": num_workers, "start_timeout": 240},
            "tracking": {"kind": "off"},
        }
        return TrainConfig.model_validate(tree)

    return make_config


class Paced:
    """A rank that waits at some steps for what is to happen there, and leaves marks for the test to see."""

    def __init__(self, context, folder):
        self._context, self._folder = context, folder

    def __getattr__(self, name):
        return getattr(self._context, name)

    def mark(self, name):
        (self._folder / f"{name}-{self.rank}").write_text(ray.get_runtime_context().get_node_id())

    def wait_until(self, condition):
        while not condition():
            time.sleep(0.02)

    def happened(self, what):
        return (self._folder / what).exists()


class Noticed(Paced):
    """Waits for the notice at step 7, and at step 8 for the end of its node."""

    def should_stop(self, step):
        if step == 7 and not self.happened("lost"):
            self.mark("at-7")
            notice = get_internal_train_context().preemption_context
            self.wait_until(lambda: notice.preemption_info is not None)
        if step == 8:
            self.mark("at-8")
            self.wait_until(lambda: self.happened("lost"))
        return False


class Resized(Paced):
    """Waits at step 7 for the end of a node, and at step 12 for the second rank that it lost there."""

    def should_stop(self, step):
        if step == 7 and self.world_size == 2:
            self.mark("at-7")
            self.wait_until(lambda: self.happened("lost"))
        if step == 12 and self.world_size == 1:
            self.mark("alone")
            self.wait_until(lambda: False)
        return False


def train_noticed(config, context, sinks):
    return noting(config, Noticed(context, RunFolder.of(config).path), sinks)


def train_resized(config, context, sinks):
    return noting(config, Resized(context, RunFolder.of(config).path), sinks)


def noting(config, context, sinks):
    start = int(gather_text(str(time.time_ns()))[0])
    note_records(RunFolder.of(config).path / "trained-on", start, context.rank, None)
    return train(config, context, sinks)


class Fit:
    """A run that goes on in a thread, since Ray changes clusters in the main thread only."""

    def __init__(self, config, loop):
        self.folder = RunFolder.of(config).path
        self.summary = self.error = None
        self._thread = threading.Thread(target=self._run, args=(config, loop), daemon=True)
        self._thread.start()

    def _run(self, config, loop):
        try:
            self.summary = run_on_ray(config, loop=loop)
        except Exception as error:  # noqa: BLE001 (shown by the test, in its own thread)
            self.error = error

    def node_at(self, mark, rank, seconds=240):
        """The node of a rank, once it has come so far."""
        path, deadline = self.folder / f"{mark}-{rank}", time.monotonic() + seconds
        while not (path.exists() and path.read_text()):
            assert self._thread.is_alive(), f"the run has ended: {self.error!r}"
            assert time.monotonic() < deadline, f"no rank came to {path.name}"
            time.sleep(0.05)
        return path.read_text()

    def has_lost(self):
        (self.folder / "lost").touch()

    def wait(self):
        self._thread.join()
        assert self.error is None
        assert self.summary.completed


def test_a_node_that_is_taken_away_after_a_notice_costs_no_step(cluster, make):
    cluster.have(3)
    config, whole = make("noticed"), make("whole")
    fit = Fit(config, train_noticed)
    node = fit.node_at("at-7", 1)
    cluster.notify(node)
    fit.node_at("at-8", 0)
    store = RunFolder.of(config).checkpoints()
    while store.steps()[-1] != 7:  # written behind the back of the loop
        time.sleep(0.02)
    cluster.lose(node)
    fit.has_lost()
    fit.wait()
    run_whole(whole, 2)
    assert_same_weights(config, whole)
    assert trained_on(config) == trained_on(whole)
    assert_each_record_once_per_epoch(config)


def test_an_elastic_run_goes_on_with_fewer_ranks_and_grows_again(cluster, make):
    cluster.have(2)
    config, whole = make("elastic", [1, 2]), make("whole")
    fit = Fit(config, train_resized)
    node = fit.node_at("at-7", 1)
    cluster.lose(node)
    fit.has_lost()
    fit.node_at("alone", 0)
    cluster.add_node()
    fit.wait()
    run_whole(whole, 2)
    assert trained_on(config) == trained_on(whole)
    assert_each_record_once_per_epoch(config)
    assert distance(config, whole) < 1e-5
