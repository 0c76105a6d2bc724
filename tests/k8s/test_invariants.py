"""What must agree across manifests, image, lock file and the configs of the jobs."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from rung.config.load import load_config
from rung.config.tree import FinetuneConfig, PrepareConfig, SweepConfig, TrainConfig
from tests.k8s.lint import DOCKERFILE, HADOLINT
from tests.k8s.manifests import K8S, ROOT, Object, pods, ray_spec
from tests.k8s.traffic import OUTSIDE, Peer, allowed

TREES = {
    "prepare": PrepareConfig,
    "prepare-r2scan": PrepareConfig,
    "pretrain": TrainConfig,
    "finetune": FinetuneConfig,
    "sweep": SweepConfig,
}
JOBS = [(overlay, name) for overlay in ("local", "single-gpu", "cloud") for name in TREES]


def job_of(items: list[Object], name: str) -> Object:
    return next(item for item in items if (item["kind"], item["metadata"]["name"]) == ("RayJob", name))


def environment_of(items: list[Object]) -> dict[str, str]:
    return next(item["data"] for item in items if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "rung-env"))


def config_of(items: list[Object], name: str) -> PrepareConfig | TrainConfig | SweepConfig:
    """The config that a job's entrypoint reads in its overlay."""
    entrypoint = job_of(items, name)["spec"]["entrypoint"]
    found = re.fullmatch(r"python /opt/rung/(jobs/\w+\.py) --config /opt/rung/(\S+)", entrypoint)
    assert found, entrypoint
    assert (ROOT / found[1]).is_file()
    path = found[2].replace("$RUNG_ENVIRONMENT", environment_of(items)["RUNG_ENVIRONMENT"])
    return load_config(TREES[name], ROOT / path)


def head_of(job: Object) -> Object:
    return ray_spec(job)["headGroupSpec"]["template"]["spec"]["containers"][0]


def locked(package: str) -> str:
    found = re.search(rf"(?m)^{package}==(\S+)$", (ROOT / "constraints.txt").read_text())
    assert found
    return found[1]


def test_versions_agree_with_the_lock(overlays):
    for items in overlays.values():
        for item in (item for item in items if item["kind"].startswith("Ray")):
            assert ray_spec(item)["rayVersion"] == locked("ray")
        images = [container["image"] for pod in pods(items) for container in pod.containers]
        assert all(f"-ray{locked('ray')}-" in image for image in images if "rung:" in image)
        assert {image for image in images if "mlflow" in image} == {f"ghcr.io/mlflow/mlflow:v{locked('mlflow')}-full"}


def test_the_readme_states_the_versions():
    table = (K8S / "README.md").read_text()
    for package in ("ray", "mlflow"):
        assert locked(package) in table


@pytest.mark.parametrize(("overlay", "name"), JOBS)
def test_every_job_reads_a_config_of_its_environment(overlays, overlay, name):
    assert config_of(overlays[overlay], name)


@pytest.mark.parametrize(("overlay", "name"), [(o, n) for o, n in JOBS if not n.startswith("prepare")])
def test_ranks_fill_the_workers(overlays, overlay, name):
    items = overlays[overlay]
    launcher = config_of(items, name).launcher
    group = ray_spec(job_of(items, name))["workerGroupSpecs"][0]
    resources = group["template"]["spec"]["containers"][0]["resources"]
    gpus = group["replicas"] * int(resources["limits"].get("nvidia.com/gpu", 0))
    if name == "sweep":  # its trials share the workers
        assert launcher.num_workers == 1
        assert (launcher.gpus_per_worker or 0) == min(gpus, 1)
        return
    assert gpus == launcher.num_workers * (launcher.gpus_per_worker or 0)
    assert launcher.num_workers * launcher.cpus_per_worker <= group["replicas"] * int(resources["requests"]["cpu"])
    if not gpus:
        assert launcher.num_workers == group["replicas"]


@pytest.mark.parametrize(("overlay", "name"), [job for job in JOBS if job[1].startswith("prepare")])
def test_preparation_takes_no_gpus(overlays, overlay, name):
    items = overlays[overlay]
    assert config_of(items, name).parallel.kind == "ray"
    for group in ray_spec(job_of(items, name))["workerGroupSpecs"]:
        assert "nvidia.com/gpu" not in group["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(("overlay", "name"), JOBS)
def test_jobs_write_where_they_may_and_nowhere_else(overlays, overlay, name):
    config = config_of(overlays[overlay], name)
    container = head_of(job_of(overlays[overlay], name))
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    written = Path(config.output if isinstance(config, PrepareConfig) else config.run.storage)
    assert any(written.is_relative_to(folder) for folder in writable)
    assert ("/mnt/data" in writable) == isinstance(config, PrepareConfig)


@pytest.mark.parametrize("overlay", ["local", "single-gpu", "cloud"])
def test_each_job_reads_what_another_wrote(overlays, overlay):
    items = overlays[overlay]
    gga, r2scan = (config_of(items, name) for name in ("prepare", "prepare-r2scan"))
    pretrain, finetune, sweep = (config_of(items, name) for name in ("pretrain", "finetune", "sweep"))
    assert gga.split == r2scan.split
    assert pretrain.data.path == gga.output
    assert {finetune.data.path, sweep.data.path} == {r2scan.output}
    assert {finetune.model.init, sweep.model.init} == {f"{pretrain.run.storage}/{pretrain.run.name}"}
    assert "r2scan" in r2scan.output
    if r2scan.source.kind == "surrogate":
        assert (gga.source.functional, r2scan.source.functional) == ("GGA", "r2SCAN")


def test_caches_lie_on_a_volume_of_the_pod(overlays):
    for items in overlays.values():
        folder = Path(environment_of(items)["NUMBA_CACHE_DIR"])
        for pod in (pod for pod in pods(items) if "ray.io/node-type" in pod.labels):
            own = {volume["name"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
            mounts = [m["mountPath"] for m in pod.containers[0]["volumeMounts"] if m["name"] in own]
            assert any(folder.is_relative_to(mount) for mount in mounts), pod.owner


def test_a_job_that_is_stopped_has_time_to_save(overlays):
    uploaded = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text())["env_vars"]
    for items in overlays.values():
        assert environment_of(items)["RAY_JOB_STOP_WAIT_TIME_S"] == uploaded["RAY_JOB_STOP_WAIT_TIME_S"]


def test_ray_knows_its_parameters(overlays):
    from ray.scripts.scripts import start

    known = {name.removeprefix("--") for option in start.params for name in option.opts}
    for items in overlays.values():
        for item in (item for item in items if item["kind"].startswith("Ray")):
            spec = ray_spec(item)
            for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
                assert set(group["rayStartParams"]) <= known


RAY = Peer({"ray.io/is-ray-node": "yes", "ray.io/node-type": "worker", "ray.io/cluster": "pretrain-x7k2p"})
HEAD = Peer({"ray.io/is-ray-node": "yes", "ray.io/node-type": "head", "ray.io/cluster": "rung-ray"})
MLFLOW, POSTGRES = (Peer({"app.kubernetes.io/name": name}) for name in ("mlflow", "postgres"))
STRANGER = Peer({"app": "stranger"})
DNS, OPERATOR = Peer({}, "kube-system"), Peer({}, "kuberay-system")
PROMETHEUS = Peer({}, "monitoring")

TRAFFIC = [
    (RAY, HEAD, 6379, True),
    (HEAD, RAY, 34567, True),
    (RAY, MLFLOW, 5000, True),
    (RAY, DNS, 53, True),
    (MLFLOW, DNS, 53, True),
    (OPERATOR, HEAD, 8265, True),
    (HEAD, OUTSIDE, 6443, True),
    (OPERATOR, HEAD, 10001, False),
    (STRANGER, HEAD, 8265, False),
    (STRANGER, MLFLOW, 5000, False),
    (OUTSIDE, HEAD, 8265, False),
    (OUTSIDE, MLFLOW, 5000, False),
    (RAY, MLFLOW, 22, False),
    (RAY, POSTGRES, 5432, False),
    (RAY, OUTSIDE, 6443, False),
    (RAY, OUTSIDE, 80, False),
    (MLFLOW, RAY, 8265, False),
    (STRANGER, OUTSIDE, 443, False),
]


def policies(items: list[Object]) -> list[Object]:
    return [item for item in items if item["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("overlay", ["local", "single-gpu", "cloud"])
@pytest.mark.parametrize(("source", "target", "port", "passes"), TRAFFIC)
def test_only_needed_traffic_passes(overlays, overlay, source, target, port, passes):
    assert allowed(policies(overlays[overlay]), source, target, port) is passes


def test_traffic_that_an_overlay_adds(overlays):
    own, cloud = policies(overlays["local"]), policies(overlays["cloud"])
    assert allowed(own, MLFLOW, POSTGRES, 5432)
    assert not allowed(own, MLFLOW, OUTSIDE, 443)
    assert not allowed(own, RAY, OUTSIDE, 443)
    assert allowed(cloud, MLFLOW, OUTSIDE, 5432)
    assert allowed(cloud, RAY, OUTSIDE, 443)
    assert not allowed(own, PROMETHEUS, RAY, 8080)
    for port in (8080, 44217, 44227):
        assert allowed(cloud, PROMETHEUS, HEAD, port)
    assert allowed(cloud, HEAD, PROMETHEUS, 9090)


def test_no_secret_is_in_the_repository():
    for file in K8S.rglob("*.yaml"):
        assert all(item["kind"] != "Secret" for item in yaml.safe_load_all(file.read_text()) if item), file
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert not [name for name in listed.split() if Path(name).name in (".env", "kubeconfig", "auth_token")]


def test_the_image_names_what_the_manifests_run():
    text = (K8S / "docker" / "Dockerfile").read_text()
    assert "WORKDIR /opt/rung\nCOPY jobs jobs" in text
    assert text.count("USER 1000:100") == len(re.findall(r"(?m)^FROM runtime AS", text)) == 2
    for tag in re.findall(r"-t (rung:\S+)", text):
        assert f"-ray{locked('ray')}-" in tag


def test_dockerfile_is_linted():
    done = subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
