import logging
import socket

import pytest
import ray

from rung.config.sections import LauncherConfig
from rung.orchestration.cluster import Cluster, check_address, connected


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "https://ray.example.org"])
def test_addresses_for_programs_outside_the_cluster_are_refused(address, monkeypatch):
    with pytest.raises(ValueError, match="ray job submit"):
        check_address(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever tests before this one left open
    with pytest.raises(ValueError, match="RAY_ADDRESS"), connected(None):
        pass


def test_an_address_where_nobody_answers_is_refused_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ValueError, match=r"no Ray cluster answers.*launcher\.address"):
        check_address(f"127.0.0.1:{port}")


def test_an_address_that_answers_and_rays_own_words_pass():
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_address(f"127.0.0.1:{server.getsockname()[1]}")
    check_address("auto")


@pytest.fixture
def one_node(monkeypatch):
    """A cluster of one living node of two CPUs, and one that died."""
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)


@pytest.mark.usefixtures("one_node")
def test_a_cluster_that_cannot_grow_refuses_at_once():
    with pytest.raises(ValueError, match=r"3 CPUs, but the cluster's 1 node with 2 CPUs.*launcher\.num_workers to 2"):
        Cluster(may_grow=False).demand(LauncherConfig(num_workers=3))


@pytest.mark.usefixtures("one_node")
def test_a_cluster_that_may_grow_is_waited_for_with_a_word(caplog):
    with caplog.at_level(logging.WARNING):
        demand = Cluster(may_grow=True).demand(LauncherConfig(num_workers=3, start_timeout=90))
    assert demand.num_workers == 3
    assert "waiting up to 90 s (launcher.start_timeout)" in caplog.text
    assert "launcher.num_workers to 2" in caplog.text
