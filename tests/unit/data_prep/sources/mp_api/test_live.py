"""Asking the Materials Project, with a client that answers from memory."""

import sys
from types import SimpleNamespace

import pytest

from data_prep.convert import prepare
from data_prep.sources.raw_file import BrokenFileError
from rung.config.tree import PrepareConfig


class Client:
    """Answers as `mp_api.client.MPRester` does."""

    def __init__(self, documents, materials):
        self.asked, self.closed = [], 0
        self._documents, self._materials = documents, materials
        tasks = SimpleNamespace(search=self._search_tasks)
        self.materials = SimpleNamespace(search=self._search_materials, tasks=tasks)

    def _search_materials(self, *, fields, material_ids=None, chemsys=None):
        wanted = material_ids or self._materials
        return [document for document in self._materials.values() if document["material_id"] in wanted]

    def _search_tasks(self, *, task_ids, fields):
        self.asked.append(task_ids)
        return [self._documents[task] for task in reversed(task_ids) if task in self._documents]

    def get_database_version(self):
        return "2025.1"

    def __exit__(self, *_):
        self.closed += 1


@pytest.fixture
def client(task, monkeypatch):
    documents = {f"mp-{n}": task(task_id=f"mp-{n}", material_id=None) for n in range(1, 30)}
    for number, document in enumerate(documents.values()):
        for calculation in document["calcs_reversed"]:
            for step in calculation["output"]["ionic_steps"]:
                step["structure"]["lattice"]["matrix"][0][0] += 0.01 * number
    materials = {
        "mp-100": {"material_id": "mp-100", "task_ids": list(documents)[:25], "deprecated_tasks": ["mp-2"]},
        "mp-200": {"material_id": "mp-200", "task_ids": list(documents)[25:], "deprecated_tasks": None},
    }
    made = Client(documents, materials)
    monkeypatch.setitem(sys.modules, "mp_api", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mp_api.client", SimpleNamespace(MPRester=lambda **_: made))
    monkeypatch.setenv("MP_API_KEY", "secret-key")
    return made


def config_of(tmp_path, **mp):
    return PrepareConfig.model_validate({"output": str(tmp_path / "out"), "source": {"kind": "mp_api", "mp": mp}})


def test_tasks_of_materials(client, tmp_path):
    summary = prepare(config_of(tmp_path, material_ids=["mp-100"]))
    assert (summary.records_read, summary.records_kept) == (48, 48)
    assert [len(tasks) for tasks in client.asked] == [20, 4]
    assert all("mp-2" not in tasks for tasks in client.asked)
    assert client.closed == 1
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    assert '"database_version": "2025.1"' in manifest
    assert '"materials": {' in manifest
    assert all("secret-key" not in path.read_text(errors="ignore") for path in (tmp_path / "out").iterdir())


def test_chemical_systems_and_the_material_of_each_task(client, tmp_path):
    from rung.data.dataset import ShardDataset

    prepare(config_of(tmp_path, chemical_systems=["Na-Cl"]))
    names = ShardDataset(tmp_path / "out").index.material_id.tolist()
    assert set(names) == {b"mp-100", b"mp-200"}


def test_a_task_that_does_not_come_is_refused_by_name(client, tmp_path):
    del client._documents["mp-27"]
    summary = prepare(config_of(tmp_path, material_ids=["mp-200"]))
    assert summary.records_rejected == {"missing_key": 1}
    assert "mp-27" in (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_nothing_found(client, tmp_path):
    with pytest.raises(BrokenFileError, match=r"no tasks for source\.mp\.material_ids \['mp-9'\]"):
        prepare(config_of(tmp_path, material_ids=["mp-9"]))


def test_no_answer(client, tmp_path, monkeypatch):
    def fail(**_):
        raise RuntimeError("401 Unauthorized")

    monkeypatch.setattr(client.materials, "search", fail)
    with pytest.raises(BrokenFileError, match=r"did not answer.*401"):
        prepare(config_of(tmp_path, material_ids=["mp-9"]))


def test_no_key_and_no_client(client, tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(BrokenFileError, match="MP_API_KEY is not set"):
        prepare(config_of(tmp_path, material_ids=["mp-9"]))
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(BrokenFileError, match=r"pip install 'mp-api>=0"):
        prepare(config_of(tmp_path, material_ids=["mp-9"]))
