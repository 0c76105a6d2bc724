"""Evaluation and export of models and runs."""

import json

import pytest
import torch
from chgnet.model import CHGNet

from rung.config.tree import EvaluateConfig, ExportConfig
from rung.evaluation.evaluate import evaluate_model
from rung.evaluation.export import export_model
from rung.model.weights import read_metadata
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.trainer import train


def evaluation(data, folder, **keys):
    tree = {"model": "0.3.0", "output": str(folder), "data": {"path": str(data)}, "batch": {"max_angles": 500}}
    return evaluate_model(EvaluateConfig.model_validate(tree | keys))


def test_the_model_that_made_the_labels_has_no_error(small_dataset, tmp_path):
    summary = evaluation(small_dataset, tmp_path / "figures")
    assert summary.num_records > 0
    assert summary.errors["energy_mae"] < 1e-5
    # In other batches, float32 rounds otherwise; it is 1e-5 eV/Å off float64 on these cells, whoever multiplies.
    assert summary.errors["force_mae"] < 2e-5
    assert summary.errors_by_functional == {"GGA": summary.errors}
    assert json.loads((tmp_path / "figures" / "summary.json").read_text()) == summary.to_dict()


def test_another_model_has_errors_of_the_size_of_the_functional_shift(small_dataset, tmp_path):
    assert evaluation(small_dataset, tmp_path, model="r2scan").errors["energy_mae"] > 1.0


def test_a_run_is_evaluated_as_its_summary_says(make_config, small_dataset, tmp_path):
    config = make_config(optimizer={"learning_rate": 1e-2, "ema_decay": 0.8})
    trained = train(config, LocalContext("cpu"))
    found = evaluation(small_dataset, tmp_path / "figures", model=str(RunFolder.of(config).path))
    expected = {name: value for name, value in trained.best["test"].items() if name != "loss"}
    assert found.errors == pytest.approx(expected, rel=1e-5)


def test_the_report_shows_the_model_beside_a_baseline_and_what_it_forgot(small_dataset, tmp_path):
    keys = {"model": "r2scan", "baseline": "0.3.0", "pretrained": "0.3.0", "probe": {"path": str(small_dataset)}}
    found = evaluation(small_dataset, tmp_path / "out", **keys)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "baseline 0.3.0" in page
    assert all(f"Largest errors of the {name}" in page for name in ("energy", "force component", "magnetic moment"))
    assert found.baseline["errors"]["energy_mae"] < 1e-5, "the baseline made these labels"
    assert found.baseline["better"]["energy"] == 0
    assert found.forgetting["before"]["energy_mae"] < 1e-5
    assert found.forgetting["after"]["energy_mae"] < 0.5 * found.errors["energy_mae"], "the reference was put back"
    assert found.forgetting["after"]["force_mae"] == pytest.approx(found.errors["force_mae"], rel=1e-4)
    assert found.physics
    assert all(law["holds"] for law in found.physics)
    assert found.phases["phases"] == 0, "the surrogate has hardly any elements by themselves"


def test_a_run_tells_what_it_was_pretrained_from(make_config, small_dataset, tmp_path):
    config = make_config(model={"init": "0.3.0"}, reference={"mode": "refit"}, training={"epochs": 0})
    train(config, LocalContext("cpu"))
    keys = {"model": str(RunFolder.of(config).path), "probe": {"path": str(small_dataset)}}
    assert evaluation(small_dataset, tmp_path / "out", **keys).forgetting["before"]["force_mae"] < 2e-5


def test_a_probe_needs_the_pretrained_model(make_config, small_dataset, tmp_path):
    data = {"path": str(small_dataset)}
    with pytest.raises(ValueError, match="set pretrained"):
        evaluation(small_dataset, tmp_path, probe=data)
    with pytest.raises(ValueError, match="set probe"):
        evaluation(small_dataset, tmp_path, pretrained="0.3.0")


def test_other_cutoffs_and_missing_models_are_refused(small_dataset, tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        evaluation(small_dataset, tmp_path / "figures", model=str(tmp_path))
    with pytest.raises(ValueError, match="no model file"):
        evaluation(small_dataset, tmp_path / "figures", model=str(tmp_path / "absent.pth.tar"))


@pytest.mark.parametrize("which", ["best", "last"])
def test_export_is_a_plain_chgnet_file_that_says_where_it_comes_from(make_config, tmp_path, which):
    config = make_config(optimizer={"learning_rate": 1e-2})
    train(config, LocalContext("cpu"))
    output = tmp_path / "model" / "small.pth.tar"
    run = RunFolder.of(config)
    summary = export_model(
        ExportConfig.model_validate({"run": str(run.path), "output": str(output), "checkpoint": which})
    )
    exported, expected = CHGNet.from_file(str(output)).state_dict(), run.load_model(which).state_dict()
    assert all(torch.equal(exported[name], weights) for name, weights in expected.items())
    card = read_metadata(output)
    assert card["config"]["loss"]["energy"] == config.loss.energy
    assert card["reference"]["mode"] == "scratch"
    assert card["run"]["step"] == summary.step
    assert json.loads((output.parent / "summary.json").read_text())["model"] == str(output)


def test_a_runs_own_summary_is_never_overwritten(make_config):
    config = make_config(training={"epochs": 0})
    summary = train(config, LocalContext("cpu"))
    run = RunFolder.of(config).path
    with pytest.raises(ValueError, match="another folder"):
        export_model(ExportConfig(run=str(run), output=str(run / "exported.pth.tar")))
    assert json.loads((run / "summary.json").read_text()) == summary.to_dict()


def test_exporting_what_is_no_run_is_refused(tmp_path):
    config = ExportConfig(run=str(tmp_path), output=str(tmp_path / "m.pth.tar"))
    with pytest.raises(ValueError, match="holds no checkpoint"):
        export_model(config)
