"""The studies of training: what they run, that they resume, and what they report."""

import json

import pytest

from data_prep.convert import prepare
from rung.config.load import ConfigError
from rung.config.studies import ScalingStudyConfig, TransferStudyConfig
from rung.config.tree import PrepareConfig
from rung.studies.runs import plan
from rung.studies.scaling import study_scaling
from rung.studies.transfer import study_transfer
from rung.training.context import LocalContext
from rung.training.run import RunFolder
from rung.training.trainer import train


@pytest.fixture
def study(make_config, small_dataset, tmp_path):
    pretrained = make_config("pretrained", training={"epochs": 1})
    train(pretrained, LocalContext("cpu"))
    init = str(RunFolder.of(pretrained).path)

    def make(tree, **keys):
        base = make_config(model={"init": init}, reference={"mode": "refit"}, training={"epochs": 1})
        values = {"output": str(tmp_path / "study"), "base": base.model_dump(mode="json"), "seeds": [0, 1]}
        return tree.model_validate(values | keys)

    return make


def test_scratch_has_the_size_of_the_pretrained_network_and_keys_follow_the_mode(study):
    config = study(
        TransferStudyConfig, methods=["scratch", "refit --model.freeze_depth 2 --optimizer.learning_rate 1e-4"]
    )
    scratch, refit = plan(config, config.methods, (1.0,))[::2]
    assert (scratch.config.model.init, scratch.config.model.feature_dim) == ("none", 8)
    assert (refit.config.model.freeze_depth, refit.config.optimizer.learning_rate) == (2, 1e-4)
    assert len({each.config.run.name for each in plan(config, config.methods, (0.5, 1.0))}) == 8


@pytest.mark.parametrize("method", ["best", "refit --model.freese_depth 2"])
def test_methods_that_are_none_are_refused(study, method):
    with pytest.raises(ConfigError, match=r"method|freeze_depth"):
        plan(study(TransferStudyConfig), [method], (1.0,))


@pytest.mark.parametrize(("tree", "run"), [(TransferStudyConfig, study_transfer), (ScalingStudyConfig, study_scaling)])
def test_a_set_without_test_materials_is_refused_before_anything_is_trained(study, tmp_path, tree, run):
    source, split = {"kind": "surrogate", "functional": "r2SCAN", "num_structures": 12}, {"validation": 0.3, "test": 0}
    prepare(PrepareConfig.model_validate({"output": str(tmp_path / "set"), "source": source, "split": split}))
    config = study(tree)
    data = config.base.data.model_copy(update={"path": str(tmp_path / "set")})
    config = config.model_copy(update={"base": config.base.model_copy(update={"data": data})})
    with pytest.raises(ValueError, match=r"set has no test materials.*split\.test"):
        run(config)
    assert not (tmp_path / "study").exists()


def test_transfer_compares_with_spread_and_does_not_repeat_runs(study, small_dataset):
    config = study(TransferStudyConfig, methods=["scratch", "residual"], probe={"path": str(small_dataset)})
    path = study_transfer(config)
    summary = json.loads(path.read_text())
    found = summary["methods"]["residual"]
    energies = [json.loads((path.parent / f"runs/residual-1-seed{s}/summary.json").read_text()) for s in (0, 1)]
    values = [each["best"]["test"]["energy_mae"] for each in energies]
    assert found["test"]["energy_mae"]["mean"] == pytest.approx(sum(values) / 2)
    assert found["test"]["energy_mae"]["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert found["forgetting"]["after"]["force_mae"]["mean"] > 0
    assert "residual" in (path.parent / "report.html").read_text()
    checkpoints = sorted(path.parent.glob("runs/*/checkpoints/*/state*"))
    times = [each.stat().st_mtime_ns for each in checkpoints]
    assert json.loads(study_transfer(config).read_text()) == summary
    assert [each.stat().st_mtime_ns for each in checkpoints] == times


def test_scaling_takes_nested_subsets_and_fits_laws(study):
    config = study(ScalingStudyConfig, shares=[0.4, 0.7, 1.0], seeds=[0])
    summary = json.loads(study_scaling(config).read_text())
    records = [point["records"] for point in summary["points"]["scratch"]]
    assert records == sorted(set(records))
    law = summary["laws"]["scratch"]["energy_mae"]
    assert law["n_points"] == 3
    assert summary["data_efficiency"]["refit"]["energy_mae"][0]["records"] == records[0]
    assert summary["zero_data"]["refit"]["energy_mae"] > 0
