"""metrics.jsonl and the progress display."""

import errno
import io
import json
import os
import re

import pytest

from rung.config.tree import TrainConfig
from rung.training.sinks import JsonLinesFile, JsonLinesSink, ProgressSink, RunDescription, read_metrics


def test_a_start_from_the_beginning_has_no_line_of_an_earlier_one(tmp_path):
    for step in (0, 1, 2):
        JsonLinesFile(tmp_path / "metrics.jsonl").add({"step": step})
    sink = JsonLinesSink()
    sink.start(description(tmp_path, 0))
    sink.log({"validation/loss": 1.0}, 0)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "validation/loss": 1.0}]


def test_lines_that_wait_for_the_storage_go_back_with_the_others(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    file, write = JsonLinesFile(path), os.write
    file.add({"step": 1})

    def full(descriptor, content):  # takes a part of a line, and then nothing
        if len(content) < 15:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, content[:5])

    monkeypatch.setattr(os, "write", full)
    for step in (2, 3, 4):
        file.add({"step": step, "loss": 0.5})
    monkeypatch.setattr(os, "write", write)
    file.keep(lambda line: line["step"] <= 3)
    file.add({"step": 4})
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]
    assert len(path.read_text().splitlines()) == 4


def test_going_back_waits_for_the_storage(tmp_path, monkeypatch, caplog):
    sink, keep, refusals = JsonLinesSink(), JsonLinesFile.keep, [OSError("read-only"), OSError("read-only")]
    sink.start(description(tmp_path, 0))
    sink.log({"train/loss": 1.0}, 1)

    def refusing(self, wanted):
        if refusals:
            raise refusals.pop()
        keep(self, wanted)

    monkeypatch.setattr(JsonLinesFile, "keep", refusing)
    sink.go_back(0)
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    assert "metrics.jsonl is written, after" in caplog.text


class Terminal(io.StringIO):
    def isatty(self):
        return True


def description(folder, first_step):
    return RunDescription(
        folder=folder,
        config=TrainConfig.model_validate({"data": {"path": "/data"}}),
        manifest_hash="",
        manifest={},
        reference={},
        num_parameters=0,
        versions={},
        first_step=first_step,
        total_steps=10,
    )


def test_lines_are_appended_and_repeated_steps_are_dropped(tmp_path):
    for first, steps in ((0, [1, 2, 3]), (2, [3, 4])):
        sink = JsonLinesSink()
        sink.start(description(tmp_path, first))
        for step in steps:
            sink.log({"train/loss": step + first}, step)
        sink.finish([])
    assert [(line["step"], line["train/loss"]) for line in read_metrics(tmp_path / "metrics.jsonl")] == [
        (1, 1),
        (2, 2),
        (3, 5),
        (4, 6),
    ]


def test_a_line_cut_by_a_crash_is_left_out(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + '\n{"step": 2, "train/lo')
    assert read_metrics(path) == [{"step": 1}]
    assert str(path) in caplog.text


def display(first, total, steps, metrics, stream=None):
    """What a run shows that logs the metrics at every step."""
    stream = stream or io.StringIO()
    sink = ProgressSink(stream)
    sink.open("pretrain", first, total)
    for step in steps:
        sink.log(metrics, step)
    sink.finish([])
    return stream.getvalue()


def test_elsewhere_than_on_a_terminal_every_tenth_is_one_line():
    shown = display(0, 200, range(1, 201), {"time/structures_per_second": 12.3, "time/data_wait": 0.02})
    lines = shown.splitlines()
    assert 10 <= len(lines) <= 12
    assert "\r" not in shown
    assert "200/200" in lines[-1]
    assert all("12.3 structures/s, wait 2 %" in line for line in lines)


def test_a_terminal_gets_one_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # room for what stands behind the bar
    shown = display(5, 10, [10], {"train/energy_mae": 0.1, "train/force_mae": 0.2}, Terminal())
    assert "10/10" in shown
    assert "100 meV/atom 200 meV/" in shown
    assert shown.count("\n") == 1


def test_steps_of_an_earlier_start_are_not_progress():
    shown = display(6, 10, range(1, 9), {"train/energy_mae": 0.1, "train/force_mae": 0.2})
    assert re.findall(r"(\d+)/10", shown) == ["7", "8"]


@pytest.mark.parametrize("call", ["finish", "abort"])
def test_sinks_that_never_started_close_quietly(call):
    for sink in (JsonLinesSink(), ProgressSink(io.StringIO())):
        getattr(sink, call)(*([[]] if call == "finish" else []))
