"""Batch prediction by tasks of a Ray cluster."""

from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ase.build import bulk

from rung.config.inference import PredictConfig
from rung.config.sections import ModelConfig
from rung.model.weights import build, save_model
from rung.orchestration.predict import run_prediction
from tests.unit.conftest import SMALL_MODEL

pytestmark = pytest.mark.ray


def test_tasks_give_the_table_of_one_process(ray_cluster, tmp_path):
    torch.manual_seed(0)
    model = save_model(build(ModelConfig.model_validate(SMALL_MODEL)), tmp_path / "m.pth.tar", {})
    rng = np.random.default_rng(0)
    cells = [bulk("NaCl", "rocksalt", 5.6) for _ in range(9)] + [bulk("NaCl", "rocksalt", 40.0)]
    for cell in cells[:-1]:
        cell.positions += rng.normal(scale=0.05, size=(2, 3))
    ase.io.write(tmp_path / "in.extxyz", cells, format="extxyz")

    def table(kind):
        settings = {"model": str(model), "input": str(tmp_path / "in.extxyz"), "output": str(tmp_path / kind)}
        summary = run_prediction(
            PredictConfig.model_validate({**settings, "chunk": 2, "parallel": {"kind": kind, "workers": 2}})
        )
        assert (summary.num_predicted, summary.failed) == (9, {"isolated_atom": 1})
        return pq.read_table(Path(settings["output"]) / "predictions.parquet").to_pydict()

    ours, theirs = table("ray"), table("local")
    assert ours["name"] == theirs["name"]
    assert np.allclose(ours["energy"], theirs["energy"], atol=1e-5)
