"""The runs of a study as tasks of a Ray cluster: the figures of the local ones, and errors that reach the user."""

import json

import pytest

from rung.config.sections import LauncherConfig
from rung.config.studies import TransferStudyConfig
from rung.config.tree import TrainConfig
from rung.orchestration.launch import launch
from rung.orchestration.many_runs import run_all, train_one
from rung.studies.transfer import study_transfer
from rung.training.run import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def base_config(storage, small_dataset, name="base", **sections) -> TrainConfig:
    tree = {
        "run": {"name": name, "storage": str(storage)},
        "data": {"path": str(small_dataset)},
        "batch": {"structures": 6},
        "model": {"feature_dim": 8, "num_radial": 5, "num_angular": 5, "num_blocks": 2},
        "reference": {"mode": "scratch"},
        "training": {"epochs": 1},
        "launcher": {"kind": "local"},
        "tracking": {"kind": "off"},
    }
    return TrainConfig.model_validate(tree | sections)


def test_a_study_on_ray_finds_what_it_finds_here(small_dataset, tmp_path, monkeypatch):
    pretrained = base_config(tmp_path / "runs", small_dataset, "pretrained")
    launch(pretrained)
    monkeypatch.chdir(tmp_path)  # paths as a user types them, while Ray's workers run elsewhere
    found = {}
    for kind in ("local", "ray"):
        base = base_config(
            tmp_path,
            small_dataset,
            model={"init": "runs/pretrained"},
            reference={"mode": "refit"},
            launcher={"kind": kind, "cpus_per_worker": 1},
        )
        config = TransferStudyConfig.model_validate(
            {
                "output": kind,
                "methods": ["scratch", "refit"],
                "seeds": [0, 1],
                "at_a_time": 3,
                "probe": {"path": str(small_dataset)},
                "base": base.model_dump(mode="json"),
            }
        )
        found[kind] = json.loads(study_transfer(config).read_text())["methods"]
    for method, expected in found["local"].items():
        for key in ("test", "zero_step", "forgetting", "curve"):
            assert found["ray"][method][key] == expected[key], f"{method} {key}"
    assert sorted(path.name for path in (tmp_path / "ray" / "runs").iterdir()) == [
        f"{method}-1-seed{seed}" for method in ("refit", "scratch") for seed in (0, 1)
    ]


def test_what_a_run_raises_is_raised_here_and_finished_runs_stay(small_dataset, tmp_path):
    launcher = LauncherConfig(kind="ray").model_dump()
    good = base_config(tmp_path, small_dataset, "good", launcher=launcher)
    bad = base_config(tmp_path, small_dataset, "bad", launcher=launcher, data={"path": str(tmp_path / "nowhere")})
    results = run_all(train_one, [good, bad], at_a_time=1)
    assert next(results).completed
    with pytest.raises(ValueError, match="no prepared data set"):
        next(results)
    assert (RunFolder.of(good).path / "summary.json").exists()
