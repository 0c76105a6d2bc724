"""Nodes end with all that came from them, and one that does not start says why. No Ray here."""

import os
import stat
import time

import psutil
import pytest

from rung.orchestration import local_cluster
from rung.orchestration.local_cluster import ClusterError, LocalCluster, Node, free_ports


@pytest.fixture
def node(tmp_path):
    started = Node(["sh", "-c", "sleep 300 & sleep 301 & wait"], os.environ, tmp_path / "log")
    deadline = time.monotonic() + 30
    while len(started._family()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield started
    started.kill()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_node_ends_with_its_children(node, how):
    family = node._family()
    getattr(node, how)()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert node.ended


def test_an_ended_node_is_ended_again(node):
    node.kill()
    node.stop()


def test_ports_are_free_and_different():
    assert len(set(free_ports(8))) == 8


def test_a_head_that_does_not_start_says_why(monkeypatch, tmp_path):
    program = tmp_path / "ray"
    program.write_text("#!/bin/sh\necho no more sockets: $*\nexit 1\n")
    program.chmod(stat.S_IRWXU)
    monkeypatch.setattr(local_cluster, "RAY", str(program))
    cluster = LocalCluster()
    with pytest.raises(ClusterError, match="no more sockets: start --block"):
        cluster.__enter__()
    assert not cluster.folder.exists()


def test_a_cluster_has_a_token_of_its_own_and_no_other_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
    cluster = LocalCluster(environment={"RUNG_ENVIRONMENT": "local"})
    try:
        assert cluster.environment["RAY_AUTH_MODE"] == "token"
        assert cluster.environment["RAY_AUTH_TOKEN_PATH"] == str(cluster.token_file)
        assert cluster.environment["RUNG_ENVIRONMENT"] == "local"
        assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "PYTHONPATH"} & cluster.environment.keys()
    finally:
        cluster.close()
