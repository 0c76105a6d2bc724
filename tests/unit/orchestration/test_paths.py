from pathlib import Path

import pytest

from rung.config.tree import TrainConfig
from rung.orchestration.paths import resolve_paths


def config(**sections):
    return TrainConfig.model_validate({"data": {"path": "shards"}, **sections})


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "gga").mkdir(parents=True)
    resolved = resolve_paths(config(run={"storage": "runs"}, model={"init": "runs/gga"}))
    assert resolved.run.storage == str(tmp_path / "runs")
    assert resolved.data.path == str(tmp_path / "shards")
    assert resolved.model.init == str(tmp_path / "runs" / "gga")


def test_files_beside_the_data_become_absolute_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolved = resolve_paths(
        config(reference={"mode": "isolated", "isolated": {"path": "atoms.csv"}}, replay={"path": "s3://sets/gga"})
    )
    assert resolved.reference.isolated.path == str(tmp_path / "atoms.csv")
    assert resolved.reference.isolated_pretrained.path is None
    assert resolved.replay.path == "s3://sets/gga"


def test_the_home_folder_is_expanded():
    assert resolve_paths(config(run={"storage": "~/runs"})).run.storage == str(Path.home() / "runs")


@pytest.mark.parametrize("init", ["none", "0.3.0", "r2scan"])
def test_names_of_models_are_left_alone(init, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_paths(config(model={"init": init})).model.init == init


def test_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = config(run={"name": "a", "seed": 3}, launcher={"num_workers": 2})
    resolved = resolve_paths(original)
    assert resolved.run.name == "a"
    assert resolved.run.seed == 3
    assert resolved.launcher == original.launcher
    assert resolve_paths(resolved) == resolved


def test_storage_in_a_submitted_jobs_temporary_folder_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "working_dir_files" / "_ray_pkg_0123"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"run\.storage 'runs'.*absolute path"):
        resolve_paths(config())
    assert resolve_paths(config(run={"storage": str(tmp_path)})).run.storage == str(tmp_path)
