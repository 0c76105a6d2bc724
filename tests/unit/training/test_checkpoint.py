"""Checkpoints survive damage, crashes and full disks."""

import errno
import hashlib
import json
import pickle

import pytest
import torch

from rung.training import checkpoint
from rung.training.checkpoint import FORMAT_VERSION, CheckpointError, CheckpointStore, NewerFormatError


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def save(store, step, *, best=False):
    return store.save({"step": step, "weights": torch.full((3,), float(step))}, step, {"loss": 1.0 / step}, best=best)


def test_newest_is_loaded(store):
    save(store, 1)
    save(store, 2)
    assert store.newest()["step"] == 2
    assert torch.equal(store.load(1)["weights"], torch.ones(3))


def test_nothing_saved_is_none(store):
    assert store.newest() is None
    assert store.best_step() is None


def test_only_the_newest_and_the_best_are_kept(store):
    for step in range(1, 7):
        save(store, step, best=step == 2)
    assert store.steps() == [2, 5, 6]
    assert store.best_step() == 2


def test_a_damaged_state_is_passed_over_and_named(store, caplog):
    save(store, 1)
    state = save(store, 2) / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 0xFF
    state.write_bytes(content)
    assert store.newest()["step"] == 1
    assert "step-00000002" in caplog.text
    with pytest.raises(CheckpointError, match="damaged"):
        store.load(2)


def test_a_cut_write_is_invisible(store):
    save(store, 1)
    (store.folder / ".step-00000002.tmp-1").mkdir()
    (store.folder / "step-00000003").mkdir()  # renamed by hand, no manifest
    assert store.steps() == [1]
    assert store.newest()["step"] == 1


def test_a_newer_format_is_refused_and_never_passed_over(store):
    save(store, 1)
    path = save(store, 2) / "manifest.json"
    manifest = json.loads(path.read_text()) | {"format_version": FORMAT_VERSION + 1}
    path.write_text(json.dumps(manifest))
    with pytest.raises(NewerFormatError, match=f"format {FORMAT_VERSION + 1}.*reads up to {FORMAT_VERSION}"):
        store.newest()


@pytest.mark.parametrize("failing", ["fsync", "torch.save"])
def test_a_full_disk_leaves_earlier_checkpoints_and_nothing_half_written(store, monkeypatch, failing):
    save(store, 1)

    def full(*_args, **_kwargs):
        if failing == "fsync":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(*((checkpoint.os, "fsync") if failing == "fsync" else (checkpoint.torch, "save")), full)
    with pytest.raises((OSError, RuntimeError), match=r"No space|file write failed"):
        save(store, 2)
    monkeypatch.undo()
    assert store.steps() == [1]
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]
    assert store.newest()["step"] == 1


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_states_load_without_pickle(store):
    folder = save(store, 1)
    torch.save({"layout": "{}", "buffers": [Evil()]}, folder / "state.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256((folder / "state.pt").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"state_sha256": digest}))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        store.load(1)


def test_states_hold_nothing_that_would_need_pickle(store):
    with pytest.raises(TypeError, match="no Evil"):
        store.save({"evil": Evil()}, 1, {}, best=False)


def test_a_checkpoint_that_was_being_replaced_when_its_writer_died_is_found(store):
    save(store, 1)
    path = save(store, 2)
    path.replace(path.with_name(".step-00000002.replaced"))
    assert store.newest()["step"] == 2
    assert store.steps() == [1, 2]


def test_replacing_a_checkpoint_leaves_one(store):
    save(store, 1)
    store.save({"step": 1, "weights": torch.zeros(3)}, 1, {}, best=False)
    assert torch.equal(store.newest()["weights"], torch.zeros(3))
    assert [path.name for path in store.folder.iterdir()] == ["step-00000001"]
