"""The checkup: each check on a machine that is well and on one that is not, and how findings are told."""

import io
import json
import socket
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rung.config.sections import DataConfig, LauncherConfig, ModelConfig, TrackingConfig
from rung.orchestration import paths
from rung.orchestration.checkup import machine, places, ray_cluster, tracking, versions
from rung.orchestration.checkup.checks import CHECKS, examine, later, line, total
from rung.orchestration.checkup.finding import Subject, note, ok, problem, refusal
from rung.orchestration.checkup.subject import job_of, subject_of

ROOT = Path(__file__).resolve().parents[3]


def nobody() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch):
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_versions_are_those_of_the_project(monkeypatch):
    assert versions.check_versions(Subject()).status == "ok"
    needed = [Requirement("numpy>=99"), Requirement("no-such-package>=1"), Requirement("torch")]
    monkeypatch.setattr(versions, "needed_versions", lambda: (SpecifierSet(">=3.99"), needed))
    finding = versions.check_versions(Subject())
    assert finding.status == "problem"
    assert "Python 3." in finding.found
    assert "(needed: >=99)" in finding.found
    assert "no-such-package is not installed (needed: >=1)" in finding.found
    assert "torch" not in finding.found
    assert "constraints.txt" in finding.advice


def test_versions_without_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(versions, "PROJECT", tmp_path / "absent")
    monkeypatch.setattr(versions.metadata, "metadata", lambda name: {"Requires-Python": ">=3.11"})
    monkeypatch.setattr(versions.metadata, "requires", lambda name: ["numpy>=2", "ruff; extra == 'dev'"])
    python, needed = versions.needed_versions()
    assert str(python) == ">=3.11"
    assert [each.name for each in needed] == ["numpy"]


def test_every_dependency_has_a_lowest_version():
    """`make test-lowest` installs it."""
    _, needed = versions.needed_versions()
    assert not [str(each) for each in needed if not {"==", ">="} & {bound.operator for bound in each.specifier}]


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Pretend a driver, a build of torch, and GPUs of one compute capability."""

    def make(driver="550.54.15", build="12.8", capability=None, built=("sm_75", "sm_90")):
        path = tmp_path / "version"
        if driver:
            path.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Tue Mar\nGCC version: 12.3.0")
        monkeypatch.setattr(machine, "DRIVER", path)
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))
        monkeypatch.setattr(machine, "node_hardware", lambda: {"gpus": [{"name": "H100", "memory_gib": 79.6}]})
        monkeypatch.setattr(machine.metadata, "version", lambda name: "3.4.0")

    return make


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"driver": ""}, "ok", "no NVIDIA GPU"),
        ({"build": None}, "problem", "driver 550.54.15), but torch"),
        ({}, "problem", "cannot use it"),
        ({"capability": (9, 0)}, "ok", "1 x H100 (79.6 GiB), compute capability 9.0, torch for CUDA 12.8, Triton 3.4"),
        ({"capability": (6, 1), "built": ["sm_60"]}, "problem", "Triton needs 7.0"),
        ({"capability": (7, 0)}, "problem", "it was built for 75, 90"),
    ],
)
def test_gpus(gpus, given, status, words):
    gpus(**given)
    finding = machine.check_gpus(Subject())
    assert finding.status == status
    assert words in finding.found
    assert (finding.advice == "") == (status == "ok")


def test_gpus_that_are_hidden_or_asked_for_in_vain(gpus, monkeypatch):
    gpus(driver="")
    wanted = Subject(launcher=LauncherConfig(gpus_per_worker=1))
    assert "launcher.gpus_per_worker is 1, but" in machine.check_gpus(wanted).found
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert machine.check_gpus(wanted).status == "ok"  # they are in the cluster
    gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.check_gpus(Subject()).status == "note"


def test_nccl_is_asked_for_with_gpus_alone(gpus, monkeypatch):
    gpus()
    assert machine.check_nccl(Subject()).found == "not needed without GPUs"
    gpus(capability=(9, 0))
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert machine.check_nccl(Subject()).status == "problem"
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "nccl", SimpleNamespace(version=lambda: (2, 27, 5)))
    assert machine.check_nccl(Subject()).found == "NCCL 2.27.5"


@pytest.mark.parametrize(
    ("threads", "status"), [("1", "ok"), ("4096", "note"), (None, "note"), ("many", "problem"), ("0", "problem")]
)
def test_threads(monkeypatch, threads, status):
    if threads is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert machine.check_threads(Subject()).status == status


@pytest.mark.parametrize(("text", "limit"), [("max 100000", None), ("150000 100000", 1.5), ("-1", None), ("200000", 2)])
def test_the_containers_share_of_cpus(monkeypatch, tmp_path, text, limit):
    path = tmp_path / "cpu.max"
    path.write_text(text)
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(machine, "_CPU_LIMITS", (tmp_path / "absent", path))
    assert machine.cpu_limit() == limit


def test_loops_compile_and_are_kept(monkeypatch, tmp_path):
    from rung.model import rows

    assert machine.check_loops(Subject()).status == "ok"
    for folder in (None, str(tmp_path / "file")):
        (tmp_path / "file").touch()
        monkeypatch.setattr(rows, "values", SimpleNamespace(stats=SimpleNamespace(cache_path=folder)))
        finding = machine.check_loops(Subject())
        assert finding.status == "note"
        assert "NUMBA_CACHE_DIR" in finding.advice


def test_shared_memory_must_hold_rays_objects(monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(total=64 * 2**20, free=64 * 2**20))
    assert "--shm-size" in machine.check_shared_memory(Subject()).advice
    assert machine.check_shared_memory(Subject(launcher=LauncherConfig(kind="local"))).status == "ok"


def test_storage_that_is_there_that_can_be_made_and_that_cannot(tmp_path):
    assert "can be written" in places.check_storage(Subject(output=("output", str(tmp_path)))).found
    assert "can be made in" in places.check_storage(Subject(output=("output", str(tmp_path / "a" / "b")))).found
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    finding = places.check_storage(Subject(output=("run.storage", str(tmp_path / "file" / "runs"))))
    assert (finding.status, finding.advice) == ("problem", "set run.storage to another folder")


def test_storage_that_refuses(monkeypatch, tmp_path):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths.tempfile, "TemporaryFile", refuse)
    finding = places.check_storage(Subject(output=("run.storage", str(tmp_path))))
    assert "cannot be written (Permission denied in" in finding.found


@pytest.mark.parametrize(("gib", "status"), [(100, "ok"), (5, "note"), (0.5, "problem")])
def test_free_disk(monkeypatch, gib, status):
    monkeypatch.setattr(places.shutil, "disk_usage", lambda path: SimpleNamespace(free=gib * 2**30))
    assert places.check_disk(Subject()).status == status


def test_data_weights_and_their_cutoffs(small_dataset, tmp_path):
    subject = Subject(kind="training", data={"data": DataConfig(path=str(small_dataset))}, model=ModelConfig())
    assert "train" in places.check_data(subject).found
    assert "random weights, 412,525 parameters" in places.check_weights(subject).found
    missing = replace(subject, data={"replay": DataConfig(path=str(tmp_path / "no"))})
    assert places.check_data(missing).status == "problem"
    absent = replace(subject, model=ModelConfig(init=str(tmp_path / "no.pth.tar")))
    assert "no model file and no run at" in places.check_weights(absent).found
    shorter = replace(subject, model=ModelConfig.model_validate({"graph": {"atom_cutoff": 5.0}}))
    assert "atom_cutoff" in places.check_weights(shorter).found


def test_a_damaged_data_set(small_dataset, tmp_path):
    (tmp_path / "manifest.json").write_bytes((small_dataset / "manifest.json").read_bytes())
    finding = places.check_data(Subject(kind="training", data={"data": DataConfig(path=str(tmp_path))}))
    assert "is missing" in finding.found
    assert finding.advice == "copy the whole folder, or prepare the data again"


def test_raw_files(tmp_path):
    (tmp_path / "there").touch()
    assert places.check_raw_files(Subject(sources={"source.path": str(tmp_path / "there")})).status == "ok"
    assert places.check_raw_files(Subject(sources={"input": str(tmp_path / "not")})).advice == "correct input"


def test_mlflows_own_database(tmp_path):
    subject = Subject(storage=str(tmp_path))
    assert "will be made" in tracking.check_mlflow(subject).found
    assert not list(tmp_path.iterdir())
    sqlite3.connect(tmp_path / "mlflow.db").close()
    assert "can be written" in tracking.check_mlflow(subject).found
    (tmp_path / "mlflow.db").write_text("no database at all, but long enough to be taken for one" * 100)
    assert tracking.check_mlflow(subject).status == "problem"
    assert tracking.check_mlflow(Subject(storage=str(tmp_path / "mlflow.db"))).status == "problem"
    assert tracking.check_mlflow(replace(subject, tracking=TrackingConfig(kind="off"))).status == "ok"
    assert "./mlruns" in tracking.check_mlflow(replace(subject, tracking=TrackingConfig(uri="./mlruns"))).found


def test_mlflows_server(monkeypatch):
    absent = Subject(tracking=TrackingConfig(uri=f"http://me:hush-hush@127.0.0.1:{nobody()}"))
    finding = tracking.check_mlflow(absent)
    assert finding.status == "problem"
    assert "does not answer (" in finding.found
    assert "hush" not in finding.found + finding.advice
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri, asked = f"http://127.0.0.1:{server.getsockname()[1]}", []

        def answer(url, timeout):
            asked.append(url)
            return io.BytesIO(b"OK")

        monkeypatch.setattr(tracking.urllib.request, "urlopen", answer)
        named = Subject(tracking=TrackingConfig(uri=uri.replace("://", "://me:hush-hush@")))
        assert tracking.check_mlflow(named).found == f"{uri.replace('://', '://***@')} answers"
        assert asked == [f"{uri}/health"]
        assert tracking.check_mlflow(Subject(tracking=TrackingConfig(uri=uri))).found == f"{uri} answers"
        for code, status in ((401, "note"), (404, "problem")):

            def refuse(url, timeout, code=code):
                raise tracking.urllib.error.HTTPError(url, code, "no", None, None)

            monkeypatch.setattr(tracking.urllib.request, "urlopen", refuse)
            assert tracking.check_mlflow(Subject(tracking=TrackingConfig(uri=uri))).status == status


def test_rays_address(monkeypatch):
    assert "starts a cluster" in ray_cluster.check_ray(Subject()).found
    assert ray_cluster.check_ray(Subject(launcher=LauncherConfig(kind="local"))).found.startswith("not used")
    at = Subject(launcher=LauncherConfig(address=f"127.0.0.1:{nobody()}"))
    finding = ray_cluster.check_ray(at)
    assert finding.found.startswith("no Ray cluster answers at")
    assert "launcher.address" in finding.advice
    assert ray_cluster.check_ray(Subject(launcher=LauncherConfig(address="ray://head:10001"))).status == "problem"
    assert ray_cluster.check_ray(Subject(launcher=LauncherConfig(address="auto"))).status == "note"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ({"ray_version": ray.__version__}, "ok", "answers, with the same versions"),
        ({"ray_version": "2.9.0"}, "problem", f"ray 2.9.0 there, {ray.__version__} here"),
        (RuntimeError("InvalidAuthToken: Authentication token is missing"), "problem", "token is missing or wrong"),
        (RuntimeError("Timed out\nat length"), "problem", "is no Ray cluster, or is not well: Timed out"),
    ],
)
def test_what_a_cluster_answers(monkeypatch, answer, status, words):
    def metadata(address):
        if isinstance(answer, Exception):
            raise answer
        return {"python_version": versions.platform.python_version()} | answer

    monkeypatch.setattr(ray_cluster, "check_address", lambda address: None)
    monkeypatch.setattr(ray_cluster, "cluster_metadata", metadata)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    finding = ray_cluster.check_ray(Subject())
    assert finding.status == status
    assert words in finding.found


def test_ranks(monkeypatch):
    hardware = {"cores": 4, "gpus": []}
    monkeypatch.setattr(ray_cluster, "node_hardware", lambda: hardware)
    monkeypatch.setattr(ray_cluster, "cpu_limit", lambda: 2.5)
    assert ray_cluster.check_ranks(Subject(launcher=LauncherConfig(num_workers=2))).status == "ok"
    finding = ray_cluster.check_ranks(Subject(launcher=LauncherConfig(num_workers=3)))
    assert finding.status == "problem"
    assert finding.advice.startswith("lower launcher.num_workers to 2")
    assert ray_cluster.check_ranks(Subject(launcher=LauncherConfig(kind="torchrun"))).status == "ok"


@pytest.mark.parametrize(
    ("config", "kind", "data"),
    [
        ("demo/finetune", "training", ["data"]),
        ("local/sweep", "sweep", ["data"]),
        ("prepare_mptrj", "prepare_data", []),
        ("evaluate", "evaluate", ["data"]),
        ("export", "export", []),
        ("predict", "predict", []),
        ("study_functionals", "study_functionals", ["lower.data", "upper.data"]),
        ("study_transfer", "study_transfer", ["probe", "base.data"]),
        ("study_scaling", "study_scaling", ["base.data"]),
    ],
)
def test_the_config_of_any_job(config, kind, data):
    overrides = {"source.path": "MPtrj.json"} if kind == "prepare_data" else {}
    subject = subject_of(ROOT / "jobs/configs" / f"{config}.yaml", overrides)
    assert subject.complaint == ""
    assert (subject.kind, list(subject.data)) == (kind, data)
    assert job_of({"output", "source", "splitt"}) == "prepare_data"


def test_a_config_that_cannot_be_read_is_a_finding(tmp_path):
    assert "does not exist" in subject_of(tmp_path / "absent.yaml", {}).complaint
    subject = subject_of(ROOT / "jobs/configs/demo/finetune.yaml", {"optimizer.speed": "1"})
    (_, finding), *_ = examine(subject, {"config": CHECKS["config"]})
    assert finding.status == "problem"
    assert "optimizer.speed (command line): unknown key" in finding.found


def test_a_check_that_breaks_is_a_problem_and_the_others_go_on(monkeypatch):
    monkeypatch.setenv("A_SECRET", "hush-hush")

    def broken(subject):
        raise ZeroDivisionError("by\nhush-hush")

    findings = dict(examine(Subject(), {"broken": broken, "well": lambda subject: ok("well")}))
    assert [each.status for each in findings.values()] == ["problem", "ok"]
    text = line("broken", findings["broken"])
    assert "this check failed itself (ZeroDivisionError: by ***)" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_package_that_cannot_be_imported_spoils_one_check_alone():
    findings = dict(examine(Subject(), {"absent": later("no_such_module", "check"), "config": CHECKS["config"]}))
    assert [each.status for each in findings.values()] == ["problem", "ok"]
    assert "(ModuleNotFoundError: No module named" in findings["absent"].found


def test_every_check_of_the_table_runs_here():
    findings = dict(examine(Subject(output=("output", "."))))
    assert findings.keys() == CHECKS.keys()
    assert not [name for name, finding in findings.items() if "failed itself" in finding.found]


def test_the_last_line_counts():
    assert total([ok("a"), ok("b")]) == "no problem found"
    assert total([ok("a"), note("b"), note("c")]) == "no problem found, 2 notes"
    assert total([ok("a"), problem("b", "c")]).startswith("1 of 2 checks found a problem")


def test_a_jobs_own_error_is_split_into_what_and_what_to_do():
    assert refusal(ValueError("x is 3: set x to 4"), "else") == problem("x is 3", "set x to 4")
    assert refusal(ValueError("x is 3"), "else") == problem("x is 3", "else")
    assert refusal(OSError("no: never"), "else") == problem("no: never", "else")


def test_what_a_cluster_says_is_read_as_it_is_kept(monkeypatch):
    kept = json.dumps({"ray_version": "1"}).encode()
    monkeypatch.setattr(
        ray_cluster, "GcsClient", lambda address: SimpleNamespace(internal_kv_get=lambda key, namespace, timeout: kept)
    )
    assert ray_cluster.cluster_metadata("head:6379") == {"ray_version": "1"}
