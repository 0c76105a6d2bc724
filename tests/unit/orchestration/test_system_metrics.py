"""Samples of a node, written and read again."""

import json
import time

import pytest

from rung.orchestration import provenance, system_metrics
from rung.orchestration.system_metrics import NodeSamples, monitored, sample
from rung.training.hardware import hardware_of_ranks, hardware_text
from rung.training.run import RunFolder


@pytest.fixture
def config(make_config):
    def make(every):
        return make_config(tracking={"kind": "mlflow", "system_metrics_every": every})

    return make


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_node_is_sampled_while_the_run_goes_on_and_numbered_through(config):
    folder = RunFolder.of(config(0.01)).path
    samples = NodeSamples(folder)
    found = []

    def more(than):
        found.extend(samples.new())
        return len(found) > than

    with monitored(config(0.01), first_on_node=True):
        wait_for(lambda: more(15))
    with monitored(config(0.01), first_on_node=True):  # goes on with the numbers of the first
        wait_for(lambda: more(60))
    more(0)
    numbers = [number for name, _, _, number in found if name.endswith("/cpu_utilization_percentage")]
    assert numbers == list(range(len(numbers)))
    assert all(name.startswith("system/") for name, *_ in found)
    assert all(abs(at / 1000 - time.time()) < 60 for _, _, at, _ in found)


def test_a_run_that_is_shorter_than_the_interval_has_one_sample(config):
    with monitored(config(600), first_on_node=True):
        pass
    found = NodeSamples(RunFolder.of(config(600)).path).new()
    assert {number for *_, number in found} == {0}


@pytest.mark.parametrize(("every", "first"), [(0, True), (0.01, False)])
def test_no_node_is_sampled_where_nobody_wants_it(config, every, first):
    with monitored(config(every), first_on_node=first):
        time.sleep(0.05)
    assert not (RunFolder.of(config(every)).path / "system").exists()


def test_a_sample_has_mlflows_names():
    assert {
        "cpu_utilization_percentage",
        "system_memory_usage_megabytes",
        "network_receive_megabytes",
    } <= sample().keys()


def test_a_folder_that_refuses_ends_the_samples_and_nothing_else(config, caplog):
    folder = RunFolder.of(config(0.01)).path
    folder.mkdir(parents=True)
    (folder / system_metrics.FOLDER_NAME).write_text("a file")
    with monitored(config(0.01), first_on_node=True):
        wait_for(lambda: "no more system metrics" in caplog.text)


def test_the_hardware_of_ranks_is_known_by_node():
    (node,) = hardware_of_ranks()
    assert node["ranks"] == [0]
    assert f"{node['cores']} cores" in hardware_text([node])


def test_the_commit_is_the_environments_or_gits(monkeypatch, tmp_path):
    provenance.source_state.cache_clear()
    monkeypatch.setenv("RUNG_GIT_COMMIT", "abc123")
    assert provenance.source_state() == {"commit": "abc123"}
    folder = RunFolder(tmp_path)
    provenance.note_source(folder)
    provenance.note_source(folder)
    assert [start["commit"] for start in json.loads((tmp_path / "source.json").read_text())] == ["abc123", "abc123"]
    provenance.source_state.cache_clear()
    monkeypatch.delenv("RUNG_GIT_COMMIT")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.source_state() == {}
    provenance.source_state.cache_clear()
