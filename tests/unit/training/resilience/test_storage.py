"""Storage that refuses for a while, or for good."""

import errno
import os
import threading
import time

import pytest
import torch

from rung.config.command import is_bad_input, is_for_the_user
from rung.training.checkpoint import CheckpointStore
from rung.training.packing import pack
from rung.training.resilience import storage
from rung.training.resilience.storage import StorageError, insist
from rung.training.resilience.writer import CheckpointWriter
from rung.training.sinks import JsonLinesFile, read_metrics


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(storage, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(storage, "_LONGEST_PAUSE", 0.02)


class Refusing:
    """Storage that is full for the first calls."""

    def __init__(self, refusals):
        self.refusals, self.calls = refusals, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls <= self.refusals:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_refusals_are_told_once_and_outlasted(caplog):
    write = Refusing(5)
    insist(write, "summary.json", patience=30)
    assert write.calls == 6
    first, last = [record.getMessage() for record in caplog.records]
    assert "summary.json cannot be written: [Errno 28] No space left on device. Trying again for up to 30 s" in first
    assert "is written, after" in last


def test_refusals_for_longer_than_the_patience_are_one_clear_error():
    with pytest.raises(StorageError, match=r"could not be written for 0\.1 s .*make room, or repair run\.storage"):
        insist(Refusing(10**9), "summary.json", patience=0.1)


def test_a_refusal_is_told_in_a_line_and_is_not_bad_input():
    with pytest.raises(StorageError) as refused:
        insist(Refusing(10**9), "summary.json", patience=0.0)
    assert is_for_the_user(refused.value)
    assert not is_bad_input(refused.value)


def test_other_errors_pass_at_once():
    def write():
        raise TypeError("no JSON")

    with pytest.raises(TypeError):
        insist(write, "x", patience=30)


class Gate(CheckpointStore):
    """A store whose writes wait at a gate, or are refused."""

    def __init__(self, folder):
        super().__init__(folder, keep=2)
        self.open = threading.Event()
        self.full = False

    def save(self, *args, **kwargs):
        self.open.wait(10)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().save(*args, **kwargs)


def submit(writer, step, *, best=False):
    state = pack({"step": step, "weights": torch.full((3,), float(step))})
    writer.submit(state, step, {"loss": 1.0}, best=best)


def test_the_loop_goes_on_while_a_checkpoint_is_written(tmp_path):
    store = Gate(tmp_path)
    writer = CheckpointWriter(store, patience=5)
    begin = time.monotonic()
    submit(writer, 1)
    assert time.monotonic() - begin < 1
    assert store.steps() == []
    store.open.set()
    writer.wait()
    assert store.newest()["step"] == 1


def test_of_what_waits_the_newest_and_the_best_are_written(tmp_path):
    store = Gate(tmp_path)
    store.keep = 100
    writer = CheckpointWriter(store, patience=5)
    submit(writer, 1)
    while writer._waiting:  # the first one is under way
        time.sleep(0.001)
    for step in range(2, 9):
        submit(writer, step, best=step in (3, 5))
    assert len(writer._waiting) == 2, "at most two states wait in memory"
    store.open.set()
    writer.wait()
    assert store.steps() == [1, 5, 8]
    assert store.best_step() == 5


def test_a_full_disk_that_is_emptied_in_time_costs_nothing(tmp_path, caplog):
    store = Gate(tmp_path)
    store.full = True
    store.open.set()
    writer = CheckpointWriter(store, patience=30)
    submit(writer, 1, best=True)
    submit(writer, 2)
    while "cannot be written" not in caplog.text:
        writer.check()
        time.sleep(0.001)
    store.full = False
    writer.wait()
    assert store.steps()[-1] == 2
    assert store.best_step() == 1


def test_a_disk_that_stays_full_is_told_at_the_next_step(tmp_path):
    store = Gate(tmp_path)
    store.full = True
    store.open.set()
    writer = CheckpointWriter(store, patience=0.05)
    submit(writer, 1)
    with pytest.raises(StorageError, match="the checkpoint of step 1"):
        writer.wait()
    with pytest.raises(StorageError):
        writer.check()
    with pytest.raises(StorageError):
        submit(writer, 2)
    writer.close(seconds=1)


def test_lines_that_storage_refuses_are_written_later_whole_and_in_order(tmp_path, monkeypatch, caplog):
    path = tmp_path / "metrics.jsonl"
    file, real = JsonLinesFile(path), os.write
    left = [15]  # bytes until the disk is full

    def limited(descriptor, data):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr("rung.training.sinks.os.write", limited)
    for step in range(1, 5):
        file.add({"step": step})
    assert [line["step"] for line in read_metrics(path)] == [1], "the second line is cut"
    assert caplog.text.count("cannot be written") == 1
    left[0] = 10**6
    file.add({"step": 5})
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4, 5]
