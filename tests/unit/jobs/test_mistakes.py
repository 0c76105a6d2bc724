"""What a newcomer gets wrong, typed on the jobs' own command lines: one clear error, and nothing begun.

Each message says what was found, what is allowed, where, and the key to change; docs/mistakes.md shows them.
"""

import logging
import socket
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ase.build import bulk
from ase.io import write

from rung.config.sections import ModelConfig
from rung.config.tree import TrainConfig
from rung.data.reference import bundled_reference
from rung.model.weights import build, save_model
from rung.orchestration import ray_train
from rung.orchestration.cluster import Cluster
from rung.orchestration.launch import launch
from rung.orchestration.mlflow_sink import MlflowSink
from rung.training.run import RunFolder
from rung.units import EV_PER_CUBIC_ANGSTROM_IN_GPA
from tests.unit.conftest import SMALL_MODEL
from tests.unit.jobs.test_jobs import start

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def small(small_dataset, tmp_path):
    """Words of a small training run in this process."""
    sizes = [word for name, value in SMALL_MODEL.items() for word in (f"--model.{name}", str(value))]
    return [
        *("--data.path", str(small_dataset), "--run.storage", str(tmp_path / "runs"), "--run.name", "mine"),
        *("--launcher.kind", "local", "--tracking.kind", "off", "--reference.mode", "scratch", *sizes),
    ]


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a job and return its error, which is one to three lines and no traceback."""

    def run(job: str, *words: str, code: int = 2) -> str:
        assert start(monkeypatch, [f"jobs/{job}.py", *words]) == code
        error = capsys.readouterr().err
        assert "Traceback" not in error
        message = error[error.index("error: ") :].strip()
        assert len(message.splitlines()) <= 3
        return message

    return run


def test_1_wrong_path(refused, small, tmp_path):
    message = refused("pretrain", *small, "--data.path", str(tmp_path / "dta"))
    assert "dta is no prepared data set (there is no such folder): run prepare_data, or correct data.path" in message
    assert not (tmp_path / "runs").exists()
    source = ("--source.kind", "mptrj", "--source.path", str(tmp_path / "no.json"), "--output", str(tmp_path / "o"))
    assert "cannot open source.path" in refused("prepare_data", *source)
    message = refused("finetune", *small, "--model.init", "run/gga", "--reference.mode", "refit")
    assert "no model file and no run at run/gga: give one of 0.3.0, r2scan" in message
    assert "model.init" in message
    message = refused("pretrain", "--config", "jobs/configs/pretrian.yaml")
    assert "config file jobs/configs/pretrian.yaml does not exist (current folder: " in message
    assert "is a folder: give one of the .yaml files in it" in refused("pretrain", "--config", "jobs/configs")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("optimizer.learning-rate", "optimizer.learning_rate"),
        ("optimiser", "optimizer"),
        ("learning_rate", "optimizer.learning_rate"),
        ("training.batch_size", "batch.structures"),
        ("epochs", "training.epochs"),
        ("num_gpus", "launcher.gpus_per_worker"),
    ],
)
def test_2_wrong_key(refused, small, key, meant):
    message = refused("pretrain", *small, f"--{key}", "1")
    assert f"{key} (command line): unknown key; did you mean {meant}?" in message


def test_2_a_key_like_no_other_gets_the_keys_there_are(refused, small):
    message = refused("pretrain", *small, "--optimizer.zzz", "1")
    assert "unknown key; optimizer has kind, learning_rate, weight_decay" in message


def frames(path: Path, energy: float = 1.0, stress: float = 1.0, *, per_atom: bool = False) -> list[str]:
    """Write cells as ASE would, with energies in another unit than eV and stress in another than eV/Å³.

    Returns:
        Words that prepare them.
    """
    table, rng, cells = bundled_reference("MPtrj"), np.random.default_rng(0), []
    symbols = ("MgO", "CaO", "NiO", "FeO", "MnO", "TiO", "VO", "CoO")
    for number, name in enumerate(symbols * 3):
        cell = bulk(name, "rocksalt", a=4.0 + 0.02 * number, cubic=number % 2 == 0)
        total = sum(table[z - 1] for z in cell.numbers) + 0.3 * len(cell) * rng.normal()
        pressure = 5.0 / EV_PER_CUBIC_ANGSTROM_IN_GPA * rng.normal()
        cell.info = {"energy": energy * total / (len(cell) if per_atom else 1), "material_id": f"m-{number}"}
        cell.info["stress"] = stress * pressure * np.eye(3)
        cell.arrays["forces"] = rng.normal(size=(len(cell), 3))
        cells.append(cell)
    write(path, cells, format="extxyz")
    source = ("--source.kind", "ase", "--source.path", str(path), "--source.functional", "PBE")
    return [*source, "--output", str(path.parent / "out"), "--parallel.workers", "1"]


def test_3_right_units_pass(monkeypatch, tmp_path):
    assert start(monkeypatch, ["jobs/prepare_data.py", *frames(tmp_path / "f.extxyz")]) == 0


@pytest.mark.parametrize(
    ("given", "unit"),
    [
        ({"per_atom": True}, "eV per atom"),
        ({"energy": 1 / 27.2114}, "Hartree"),
        ({"energy": 1 / 13.6057}, "Rydberg"),
        ({"energy": 96.485}, "kJ/mol"),
        ({"energy": 1e3}, "meV"),
    ],
)
def test_3_energies_in_another_unit(refused, tmp_path, given, unit):
    message = refused("prepare_data", *frames(tmp_path / "f.extxyz", **given))
    assert "24 energies with the functional GGA are far from its elemental references" in message
    assert f"would fit as {unit}; total energies of the cell in eV are read: convert the file" in message
    assert "filters.functional_check" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("factor", [EV_PER_CUBIC_ANGSTROM_IN_GPA, 10 * EV_PER_CUBIC_ANGSTROM_IN_GPA])
def test_3_stress_in_gpa_or_kbar(refused, tmp_path, factor):
    message = refused("prepare_data", *frames(tmp_path / "f.extxyz", stress=factor))
    assert "most records have absurd stress: the largest components are" in message
    assert "an ASE source reads stress in eV/Å³ (GPa / 160.2, kbar / 1602)" in message
    assert "filters.stress_floor" in message


@NO_GPU
def test_4_a_gpu_on_a_machine_without(refused, small, monkeypatch):
    message = refused("pretrain", *small, "--launcher.gpus_per_worker", "1")
    assert "launcher.gpus_per_worker is 1, but PyTorch" in message
    assert "sees no GPU on this machine" in message
    on_a_cluster_of(monkeypatch, {"CPU": 2.0})
    message = refused("pretrain", *small, "--launcher.kind", "ray", "--launcher.gpus_per_worker", "1")
    assert "asks for 1 rank x (1 CPU, 1 GPU) = 1 CPU and 1 GPU, but the cluster's 1 node with 2 CPUs and 0" in message
    assert "launcher.gpus_per_worker" in message


def test_5_weights_of_another_size(refused, small, tmp_path):
    weights = save_model(build(ModelConfig.model_validate(SMALL_MODEL)), tmp_path / "m.pth.tar", {})
    more = ("--model.init", str(weights), "--reference.mode", "refit", "--model.feature_dim", "32")
    message = refused("finetune", *small, *more)
    assert "model.feature_dim is 32, theirs 8" in message
    assert "num_radial" not in message
    assert "leave these keys out, or set model.init to none" in message


def test_6_a_name_that_is_taken(refused, small, monkeypatch):
    assert start(monkeypatch, ["jobs/pretrain.py", *small, "--training.epochs", "0"]) == 0
    message = refused("pretrain", *small, "--training.epochs", "0", "--optimizer.learning_rate", "0.1")
    assert "mine holds a run with other settings: " in message
    assert "optimizer.learning_rate: 0.001 then, 0.1 now" in message
    assert "run.name" in message


def test_7_a_port_that_is_taken(refused, small, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ours = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in ours.items():
            monkeypatch.setenv(name, value)
        message = refused("pretrain", *small, "--launcher.kind", "torchrun", code=1)
    assert f"rank 0 cannot open port {port} of 127.0.0.1 (MASTER_PORT)" in message
    assert "--master-port" in message


def test_8_a_folder_that_cannot_be_written(refused, small, tmp_path):
    """A file in the place of a folder, which stops root too."""
    (tmp_path / "file").touch()
    inside = str(tmp_path / "file" / "runs")
    expected = f"cannot be made, since {tmp_path / 'file'} is a file: set"
    assert f"{expected} run.storage to another folder" in refused("pretrain", *small, "--run.storage", inside)
    data = ("--data.path", "data", "--model", "0.3.0", "--output", inside)
    assert f"{expected} output to another folder" in refused("evaluate", *data)
    message = refused("export", "--run", str(tmp_path), "--output", f"{inside}/m.pth.tar")
    assert f"{expected} output to another folder" in message
    message = refused("predict", "--model", "0.3.0", "--input", "x.extxyz", "--output", inside)
    assert f"{expected} output to another folder" in message
    source = ("--source.kind", "surrogate", "--source.functional", "GGA", "--source.num_structures", "1")
    assert "set output to another folder" in refused("prepare_data", *source, "--output", inside)


def test_9_an_mlflow_server_that_is_not_there(make_config, caplog, monkeypatch):
    """Training does not depend on it, so it is a warning, at once; plain folders are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sink = MlflowSink(interval=0.01, patience=0.1)
    config: TrainConfig = make_config(tracking={"uri": f"http://127.0.0.1:{port}"}, training={"epochs": 0})
    monkeypatch.setattr("rung.orchestration.launch.tracker", lambda config: sink)
    with caplog.at_level(logging.WARNING):
        assert launch(config).completed
    assert f"no server answers at port {port} of 127.0.0.1 (Connection refused): start it, correct" in caplog.text
    assert "tracking.uri (MLFLOW_TRACKING_URI), or set tracking.kind to off" in caplog.text
    assert "Training goes on" in caplog.text


def test_9_a_folder_for_mlflow(refused, small):
    message = refused("pretrain", *small, "--tracking.kind", "mlflow", "--tracking.uri", "./mlruns")
    assert "MLflow no longer writes to plain folders" in message
    assert "tracking.uri" in message


def test_10_more_workers_than_there_is_room_for(refused, small, monkeypatch, tmp_path):
    on_a_cluster_of(monkeypatch, {"CPU": 2.0})
    message = refused("pretrain", *small, "--launcher.kind", "ray", "--launcher.num_workers", "64")
    assert "64 ranks x (1 CPU, 0 GPUs) = 64 CPUs, but the cluster's 1 node with 2 CPUs in all can hold 2" in message
    assert "lower launcher.num_workers to 2" in message
    assert not RunFolder(tmp_path / "runs" / "mine").checkpoints().steps()


def test_10_workers_that_nobody_starts(make_config, caplog):
    with caplog.at_level(logging.WARNING):
        launch(make_config(launcher={"kind": "local", "num_workers": 4}, training={"epochs": 0}))
    assert "launcher.num_workers 4 is not used; set launcher.kind to ray for more" in caplog.text


def on_a_cluster_of(monkeypatch, *nodes: dict[str, float]) -> None:
    """Let jobs find a cluster that was started for them, without starting one."""

    @contextmanager
    def connected(address: str | None):
        yield Cluster(may_grow=False)

    alive: Sequence[dict[str, object]] = [{"Alive": True, "Resources": node} for node in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: alive)
    monkeypatch.setattr(ray_train, "connected", connected)
