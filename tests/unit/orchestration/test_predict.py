"""The job of prediction: nothing lost, nothing doubled, however often it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ase.build import bulk

from rung.config.inference import PredictConfig
from rung.config.sections import ModelConfig
from rung.data.dataset import ShardDataset
from rung.inference.store import OutputError
from rung.model.weights import build, save_model
from rung.orchestration import predict as predict_module
from rung.orchestration.predict import NoStructureError, predict, run_prediction
from tests.unit.conftest import SMALL_MODEL

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    return save_model(build(ModelConfig.model_validate(SMALL_MODEL)), folder / "m.pth.tar", {})


@pytest.fixture
def cells():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(10):
        cell = bulk("NaCl", "rocksalt", 5.6)
        cell.positions += rng.normal(scale=0.05, size=(2, 3))
        found.append(cell)
    lonely = bulk("NaCl", "rocksalt", 40.0)
    return [*found[:4], lonely, *found[4:]]


@pytest.fixture
def config(tmp_path, model_file, cells):
    ase.io.write(tmp_path / "in.extxyz", cells, format="extxyz")

    def make(**changes):
        settings = {"model": str(model_file), "input": str(tmp_path / "in.extxyz"), "output": str(tmp_path / "out")}
        return PredictConfig.model_validate({**settings, "chunk": 3, **changes})

    return make


def table_of(config):
    return pq.read_table(Path(config.output) / "predictions.parquet").to_pydict()


def test_a_table_of_predictions_a_list_of_failures_and_a_summary(config, cells):
    summary = run_prediction(config())
    table = table_of(config())
    assert table["index"] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert table["name"][4] == "in.extxyz#5"
    assert table["formula"][0] == "NaCl"
    assert np.allclose(table["energy"], 2 * np.array(table["energy_per_atom"]))
    assert np.array(table["forces"]).shape == (10, 2, 3)
    assert np.array(table["stress"]).shape == (10, 3, 3)
    (failure,) = [json.loads(line) for line in (Path(config().output) / "failures.jsonl").read_text().splitlines()]
    assert (failure["index"], failure["reason"]) == (4, "isolated_atom")
    assert (summary.num_structures, summary.num_predicted, summary.failed) == (11, 10, {"isolated_atom": 1})
    left = {path.name for path in Path(config().output).iterdir()}
    assert left == {"predictions.parquet", "failures.jsonl", "summary.json", "plan.json"}


def test_extxyz_holds_the_same_numbers_as_parquet(config, tmp_path, cells):
    run_prediction(config())
    run_prediction(config(format="extxyz", output=str(tmp_path / "xyz")))
    table, frames = table_of(config()), ase.io.read(tmp_path / "xyz" / "predictions.extxyz", index=":")
    assert [frame.info["index"] for frame in frames] == table["index"]
    for row, frame in enumerate(frames):
        assert frame.get_potential_energy() == pytest.approx(table["energy"][row], abs=1e-6)
        assert np.allclose(frame.get_forces(), table["forces"][row], atol=1e-6)
        assert np.allclose(frame.get_stress(voigt=False) * 160.21766208, table["stress"][row], atol=1e-4)
        assert np.allclose(frame.get_magnetic_moments(), table["magmoms"][row], atol=1e-6)
        assert frame.get_chemical_symbols() == cells[table["index"][row]].get_chemical_symbols()


def test_a_second_call_finds_the_predictions_and_another_model_is_refused(config, monkeypatch, tmp_path):
    first = run_prediction(config())
    assert run_prediction(config(parallel={"workers": 2})) == first
    torch.manual_seed(1)
    other = save_model(build(ModelConfig.model_validate(SMALL_MODEL)), tmp_path / "other.pth.tar", {})
    with pytest.raises(OutputError, match="differ in model_sha256"):
        run_prediction(config(model=str(other)))
    with pytest.raises(OutputError, match="differ in chunk"):
        run_prediction(config(chunk=4))


def test_a_folder_of_something_else_is_left_alone(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="is not empty"):
        run_prediction(config())


def test_an_input_without_structures_is_an_error(config, tmp_path):
    (tmp_path / "in.json").write_text("[]")
    with pytest.raises(NoStructureError, match=r"in\.json"):
        run_prediction(config(input=str(tmp_path / "in.json")))


def test_a_prediction_that_fails_half_way_goes_on_behind_what_is_finished(config):
    asked = []

    def fails_after_two(work, chunks):
        for number, chunk in enumerate(chunks):
            if number == 2:
                raise RuntimeError("power cut")
            yield work(chunk)

    def listening(work, chunks):
        for chunk in chunks:
            asked.extend(item.index for item in chunk)
            yield work(chunk)

    with pytest.raises(RuntimeError, match="power cut"):
        predict(config(), fails_after_two)
    summary = predict(config(), listening)
    assert asked == [6, 7, 8, 9, 10]
    assert summary.num_predicted == 10
    assert table_of(config())["index"] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]


def test_a_process_killed_again_and_again_loses_and_doubles_nothing(config, tmp_path, cells):
    many = cells * 12
    ase.io.write(tmp_path / "in.extxyz", many, format="extxyz")
    settings = config(output=str(tmp_path / "killed"))
    command = [sys.executable, "jobs/predict.py", *(f"--{key}={getattr(settings, key)}" for key in ("model", "input"))]
    command += [f"--output={settings.output}", "--chunk=3"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/platform:{ROOT}"}
    parts = Path(settings.output) / "parts"
    for kill_at in (2, 9):
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while len(list(parts.glob("part-*.parquet"))) < kill_at and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (Path(settings.output) / "summary.json").exists()
    run_prediction(settings)
    run_prediction(config(output=str(tmp_path / "whole")))
    assert table_of(settings) == table_of(config(output=str(tmp_path / "whole")))
    assert (tmp_path / "killed" / "failures.jsonl").read_text() == (tmp_path / "whole" / "failures.jsonl").read_text()


def test_several_processes_give_the_same_table(config, tmp_path):
    run_prediction(config(chunk=1))
    several = config(chunk=1, parallel={"workers": 2}, output=str(tmp_path / "several"))
    run_prediction(several)
    assert table_of(several) == table_of(config())


def test_a_prepared_set_is_predicted_by_its_stored_graphs(config, small_dataset, tmp_path):
    settings = config(input=str(small_dataset), chunk=20)
    summary = run_prediction(settings)
    dataset = ShardDataset(small_dataset)
    ids = sorted(np.concatenate([dataset.select(split) for split in ("train", "validation", "test")]).tolist())
    table = table_of(settings)
    assert summary.num_predicted == len(ids)
    assert table["name"] == dataset.record_names(ids)
    assert table["num_atoms"] == [dataset[record_id].num_atoms for record_id in ids]


def test_a_prepared_set_is_not_mixed_with_files(config, small_dataset, tmp_path):
    with pytest.raises(ValueError, match="one prepared set at a time"):
        run_prediction(config(input=[str(small_dataset), str(tmp_path / "in.extxyz")]))


def test_ray_is_asked_only_where_the_config_says_so(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "rung.orchestration.ray_predict", None)
    run_prediction(config())
    with pytest.raises(ImportError):
        predict_module.run_prediction(config(parallel={"kind": "ray"}))
