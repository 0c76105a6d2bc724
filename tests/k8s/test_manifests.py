"""Every overlay and component renders and is valid; planted mistakes are not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubernetes_validate.utils import all_versions

from rung.config.load import load_config
from rung.config.tree import FinetuneConfig, PrepareConfig, TrainConfig
from tests.k8s.manifests import K8S, KUBECTL, ROOT, Object, pods, ray_spec, reference_faults, render, schema_faults
from tests.k8s.mistakes import CRD_MISTAKES, MISTAKES, plant

OVERLAYS = ("local", "single-gpu", "cloud")
COMPONENTS = ("kueue", "monitoring", "gcs-ft", "spot", "rdma", "postgres")
VERSIONS = [v for v in dict.fromkeys(all_versions()) if tuple(map(int, v.split(".")[:2])) >= (1, 31)]
CONFIGS = {"prepare": PrepareConfig, "pretrain": TrainConfig, "finetune": FinetuneConfig}


@pytest.fixture(scope="module")
def overlays() -> dict[str, tuple[list[Object], list[Object]]]:
    return {name: (render(K8S / "overlays" / name), render(K8S / "overlays" / name / "jobs")) for name in OVERLAYS}


@pytest.fixture(scope="module")
def crds() -> Path:
    """Folder of the CRDs of KubeRay, Kueue and Prometheus: RUNG_K8S_CRDS, or shared/k8s-crds beside the repository."""
    folder = Path(os.environ.get("RUNG_K8S_CRDS") or ROOT.parent / "shared" / "k8s-crds")
    if not folder.is_dir():
        pytest.skip(f"no CRDs at {folder}: set RUNG_K8S_CRDS to check Ray, Kueue and Prometheus resources too")
    return folder


def cloud(overlays: dict[str, tuple[list[Object], list[Object]]]) -> list[Object]:
    cluster, jobs = overlays["cloud"]
    return cluster + jobs


def faults(
    items: list[Object], version: str, crds: Path | None = None, around: list[Object] | None = None
) -> list[str]:
    return [fault for item in items for fault in schema_faults(item, version, crds)] + list(reference_faults(items, []))


@pytest.mark.parametrize("version", VERSIONS)
def test_overlays_are_valid(overlays, version):
    for cluster, jobs in overlays.values():
        assert faults(cluster + jobs, version) == []


def test_overlays_satisfy_the_crds(overlays, crds):
    for cluster, jobs in overlays.values():
        assert faults(cluster + jobs, VERSIONS[-1], crds) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_are_valid(component, tmp_path_factory):
    folder = tmp_path_factory.mktemp("overlay")
    up = os.path.relpath(K8S, folder.resolve())
    (folder / "kustomization.yaml").write_text(
        f"resources: [{up}/base, {up}/jobs]\ncomponents: [{up}/components/{component}]\n"
    )
    assert faults(render(folder), VERSIONS[-1]) == []


@pytest.mark.parametrize(("where", "path", "value"), MISTAKES)
def test_mistakes_are_refused(overlays, where, path, value):
    planted = plant(cloud(overlays), where, path, value)
    changed = [item for item in planted if item not in cloud(overlays)]
    assert changed
    assert [f for item in changed for f in schema_faults(item, VERSIONS[-1], None)] or list(
        reference_faults(planted, [])
    )


@pytest.mark.parametrize(("where", "path", "value"), CRD_MISTAKES, ids=[f"{w[1]}-{p}" for w, p, _ in CRD_MISTAKES])
def test_mistakes_are_refused_by_crds(overlays, crds, where, path, value):
    planted = plant(cloud(overlays), where, path, value)
    mistaken = next(item for item in planted if (item["kind"], item["metadata"]["name"]) == where)
    assert list(schema_faults(mistaken, VERSIONS[-1], crds))


def locked(package: str) -> str:
    found = re.search(rf"(?m)^{package}==(\S+)$", (ROOT / "constraints.txt").read_text())
    assert found
    return found[1]


def test_versions_agree_with_the_lock(overlays):
    for cluster, jobs in overlays.values():
        for item in (item for item in cluster + jobs if item["kind"].startswith("Ray")):
            assert ray_spec(item)["rayVersion"] == locked("ray")
        images = [container["image"] for pod in pods(cluster + jobs) for container in pod["spec"]["containers"]]
        assert all(f"-ray{locked('ray')}-" in image for image in images if "rung:" in image)
        assert [i for i in images if "mlflow" in i] == [f"ghcr.io/mlflow/mlflow:v{locked('mlflow')}-full"]


def test_ranks_fill_the_workers(overlays):
    for name, (_, jobs) in overlays.items():
        for job in (job for job in jobs if job["metadata"]["name"] in ("pretrain", "finetune")):
            config = load_config(CONFIGS[job["metadata"]["name"]], config_of(job))
            group = ray_spec(job)["workerGroupSpecs"][0]
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            gpus = group["replicas"] * int(limits.get("nvidia.com/gpu", 0))
            ranks = config.launcher.num_workers
            assert gpus == ranks * (config.launcher.gpus_per_worker or 0), name
            if not gpus:
                assert ranks == group["replicas"], name


def config_of(job: Object) -> Path:
    found = re.search(r"--config (\S+?)'?$", job["spec"]["entrypoint"])
    assert found
    return ROOT / found[1]


def test_jobs_write_where_they_may(overlays):
    for _, jobs in overlays.values():
        for job in (job for job in jobs if job["metadata"]["name"] in CONFIGS):
            config = load_config(CONFIGS[job["metadata"]["name"]], config_of(job))
            container = ray_spec(job)["headGroupSpec"]["template"]["spec"]["containers"][0]
            writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
            written = Path(config.output if isinstance(config, PrepareConfig) else config.run.storage)
            assert any(written.is_relative_to(folder) for folder in writable)


def test_no_secret_is_in_the_repository():
    for file in K8S.rglob("*.yaml"):
        assert all(item["kind"] != "Secret" for item in yaml.safe_load_all(file.read_text()) if item), file


def test_dockerfile_is_linted():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, K8S / "docker" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="needs an API server: set KUBECONFIG")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_server_accepts(overlay):
    for folder in (K8S / "overlays" / overlay, K8S / "overlays" / overlay / "jobs"):
        command = [KUBECTL, "apply", "--dry-run=server", "--validate=strict", "-k", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
