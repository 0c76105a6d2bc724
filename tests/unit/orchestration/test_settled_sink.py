"""A tracker hears of each step once, with the value that counts, whatever was undone on the way."""

import dataclasses

import pytest
import torch

from rung.orchestration.settled_sink import SettledSink
from rung.orchestration.watch import DescriptionSink, RunWatcher
from rung.training import step
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.sinks import read_metrics
from rung.training.trainer import train


class Recorder:
    def __init__(self):
        self.metrics, self.end = [], None

    def start(self, description):
        pass

    def log(self, metrics, step):
        self.metrics += [(step, name, value) for name, value in metrics.items()]

    def finish(self, artifacts):
        self.end = "finished"

    def abort(self):
        self.end = "aborted"


class Description:
    def __init__(self, folder):
        self.folder = folder


@pytest.fixture
def sink(tmp_path):
    sink = SettledSink(Recorder(), interval=0.0)
    sink.start(Description(tmp_path))
    return sink


def checkpoint(tmp_path, number):
    RunFolder(tmp_path).checkpoints().save({"step": number}, number, {}, best=False)


def test_metrics_wait_for_the_checkpoint_that_holds_their_step(sink, tmp_path):
    recorder = sink._sink
    for number in (1, 2, 3):
        sink.log({"loss": float(number)}, number)
    assert recorder.metrics == []
    checkpoint(tmp_path, 2)
    sink.log({"validation": 0.5}, 3)
    assert recorder.metrics == [(1, "loss", 1.0), (2, "loss", 2.0)]
    sink.abort()
    assert recorder.metrics == [(1, "loss", 1.0), (2, "loss", 2.0)], "step 3 will be done again"
    assert recorder.end == "aborted"


def test_what_was_undone_is_never_told(sink, tmp_path):
    checkpoint(tmp_path, 2)
    for number in range(1, 6):
        sink.log({"loss": float(number)}, number)
    for number in range(1, 4):  # a file that was cut to the checkpoint is read again from its beginning
        sink.log({"loss": 10.0 * number}, number)
    checkpoint(tmp_path, 6)
    sink.finish([])
    assert [entry for entry in sink._sink.metrics if entry[0] > 2] == [(3, "loss", 30.0)]


def test_a_run_that_rewinds_is_told_as_its_file_has_it(make_config, monkeypatch):
    training = {"epochs": 2, "log_every": 1, "checkpoint_every": 2}
    config = make_config(faults={"non_finite": "rewind"}, training=training)
    compute, attempts = step.TrainStep.compute, []

    def spoilt(self, plan, batches, *replayed):
        attempts.append(plan)
        bad = len(attempts) == 4
        return compute(self, plan, [dataclasses.replace(b, energy=b.energy * torch.nan) if bad else b for b in batches])

    recorder = Recorder()
    settled = SettledSink(recorder, interval=0.0)
    watcher = RunWatcher(config, [settled])

    class Watched(LocalContext):
        """What the watching thread would see before each step."""

        def should_stop(self, step):
            watcher._poll()
            return False

    monkeypatch.setattr(step.TrainStep, "compute", spoilt)
    assert train(config, Watched("cpu"), [DescriptionSink()]).completed
    watcher._poll()
    settled.finish([])
    lines = read_metrics(RunFolder.of(config).path / "metrics.jsonl")
    expected = [(line["step"], name, value) for line in lines for name, value in line.items() if name != "step"]
    told = set(recorder.metrics)  # MLflow leaves out steps that it has
    assert told == set(expected)
    assert len({entry[:2] for entry in told}) == len(told), "one value a step"
