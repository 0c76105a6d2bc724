import json

import pytest

from rung.training import meanwhile
from rung.training.context import LocalContext
from rung.training.meanwhile import MEANWHILE_NAME, Meanwhile
from rung.training.run import RunFolder
from rung.training.trainer import train


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(meanwhile, "time", clock)
    return clock


def found(folder):
    path = folder.path / MEANWHILE_NAME
    return json.loads(path.read_text()) if path.exists() else None


def test_it_is_written_once_a_second_and_goes_with_the_work(folder, clock):
    note = Meanwhile(folder, rank=0)
    note("evaluating", 1, 9, "structure")
    assert found(folder) is None
    for done in (2, 3):
        clock.now += 0.6
        note("evaluating", done, 9, "structure")
    assert found(folder) == {"what": "evaluating", "done": 3, "total": 9, "unit": "structure"}
    clock.now += 0.6
    note("evaluating", 4, 9, "structure")
    assert found(folder)["done"] == 3
    note("evaluating", 9, 9, "structure")
    assert found(folder) is None


def test_rank_0_alone_speaks(folder, clock):
    note = Meanwhile(folder, rank=1)
    clock.now += 5
    note("evaluating", 1, 9, "structure")
    assert found(folder) is None


def test_storage_that_refuses_is_no_reason_to_stop(tmp_path, clock):
    (tmp_path / "file").touch()
    note = Meanwhile(RunFolder(tmp_path / "file" / "run"), rank=0)
    clock.now += 5
    note("evaluating", 1, 9, "structure")
    note("evaluating", 9, 9, "structure")


def test_a_run_tells_of_its_evaluations(make_config, monkeypatch):
    told = []
    monkeypatch.setattr(meanwhile, "_EVERY", 0.0)
    write = RunFolder.write

    def noting(folder, name, text):
        if name == MEANWHILE_NAME:
            told.append(json.loads(text))
        return write(folder, name, text)

    monkeypatch.setattr(RunFolder, "write", noting)
    config = make_config("told", batch={"structures": 4, "max_bonds": 1, "max_angles": 1})
    train(config, LocalContext("cpu"))
    assert {note["what"] for note in told} >= {"evaluating"}
    assert all(0 < note["done"] < note["total"] for note in told)
    assert not (RunFolder.of(config).path / MEANWHILE_NAME).exists()
