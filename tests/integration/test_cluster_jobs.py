"""The RayJobs of k8s/jobs on a cluster of three nodes, token and all; nodes, the head and jobs are taken away.

Each job is submitted by `ray job submit` with the entrypoint that the rendered manifest holds, in the environment that
the overlay's ConfigMap gives, and with the uploaded working directory in place of the image's /opt/rung.
"""

import json
import re
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "k8s" / "overlays" / "local"
SMALL = "--model.feature_dim 8 --model.num_radial 5 --model.num_angular 5 --batch.structures 8"
ENDLESS = "--training.epochs 100000 --schedule.kind constant"


def wait_until(condition, what, seconds=400):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """Address and password of a Redis server of this test's own on the loopback address; None without redis-server."""
    from rung.orchestration.local_cluster import free_ports

    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    (port,), password = free_ports(1), secrets.token_hex(8)
    folder = tmp_path_factory.mktemp("redis")
    options = ["--bind", "127.0.0.1", "--port", str(port), "--requirepass", password, "--appendonly", "yes"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *options], cwd=folder, stdout=log, stderr=log)
    yield f"127.0.0.1:{port}", password
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def manifests():
    from tests.k8s.manifests import render

    return render(OVERLAY) + render(OVERLAY / "jobs")


@pytest.fixture(scope="module")
def cluster(manifests, redis, tmp_path_factory):
    from rung.orchestration.local_cluster import LocalCluster

    (settings,) = [item["data"] for item in manifests if item["metadata"]["name"] == "rung-env"]
    cache = tmp_path_factory.mktemp("numba")
    environment = settings | {"NUMBA_CACHE_DIR": str(cache), "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}
    del environment["MLFLOW_TRACKING_URI"]  # there is no such server here: runs go to mlflow.db in their storage
    flags = []
    if redis is not None:
        environment["RAY_REDIS_ADDRESS"], password = redis
        flags = [f"--redis-password={password}"]
    with LocalCluster(environment=environment, head_flags=flags) as started:
        yield started


class Jobs:
    """Submits the RayJobs; folders of this machine take the place of the volumes."""

    def __init__(self, cluster, manifests, folder):
        self.cluster = cluster
        self.folder = folder
        self._entrypoints = {i["metadata"]["name"]: i["spec"]["entrypoint"] for i in manifests if i["kind"] == "RayJob"}

    def command(self, name, overrides=""):
        """The entrypoint of a RayJob, with the volumes' paths and more settings given on its command line."""
        data, runs = self.folder / "data", self.folder / "runs"
        paths = {
            "prepare": f"--output {data}/gga",
            "prepare-r2scan": f"--output {data}/r2scan",
            "pretrain": f"--run.storage {runs} --data.path {data}/gga",
        }
        tuned = f"--run.storage {runs} --data.path {data}/r2scan --model.init {runs}/pretrain-gga"
        return f"{self._entrypoints[name].replace('/opt/rung/', '')} {paths.get(name, tuned)} {overrides}"

    def submit(self, submission, name, overrides="", *flags):
        """Returns exit code and output; waits for the job's end unless told `--no-wait`."""
        options = ["--submission-id", submission, "--runtime-env", "jobs/runtime_env.yaml", *flags]
        return self._call("submit", *options, "--", "sh", "-c", self.command(name, overrides))

    def start(self, submission, name, overrides=""):
        code, output = self.submit(submission, name, overrides, "--no-wait")
        assert code == 0, output

    def status(self, submission):
        """Such as running, succeeded, stopped."""
        said = self._call("status", submission)[1]
        found = re.search(r"Job '[^']*' (?:was )?(succeeded|failed|stopped)|Status for job '[^']*': (\w+)", said)
        assert found, said
        return (found[1] or found[2]).lower()

    def wait(self, submission):
        """Returns what the job said; fails unless it succeeded."""
        wait_until(lambda: self.status(submission) not in ("pending", "running"), f"the end of {submission}")
        logs = self.logs(submission)
        assert self.status(submission) == "succeeded", logs
        return logs

    def logs(self, submission):
        return self._call("logs", submission)[1]

    def stop(self, submission):
        return self._call("stop", submission)

    def steps(self, run):
        """Number of the last step of a run that is in its metrics."""
        path = self.folder / "runs" / run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def file(self, run, name):
        return json.loads((self.folder / "runs" / run / name).read_text())

    def _call(self, verb, *arguments):
        done = subprocess.run(
            self.cluster.job_command(verb, *arguments),
            cwd=ROOT,
            env=self.cluster.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def jobs(cluster, manifests, mlflow_template, tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "runs").mkdir()
    shutil.copy(mlflow_template, folder / "runs" / "mlflow.db")
    return Jobs(cluster, manifests, folder)


@pytest.fixture(scope="module")
def prepared(jobs):
    """Both data sets, by their RayJobs at the same time."""
    for name in ("prepare", "prepare-r2scan"):
        jobs.start(name, name, "--source.num_structures 48 --split.validation 0.3")
    for name in ("prepare", "prepare-r2scan"):
        assert str(jobs.folder / "data") in jobs.wait(name)
    return jobs


@pytest.fixture(scope="module")
def pretrained(prepared):
    """A pretrained run that lost a node on the way; each rank fills a node, so it cannot go on without another one."""
    jobs = prepared
    jobs.start(
        "pretrain", "pretrain", f"{SMALL} --training.epochs 15 --launcher.cpus_per_worker 2 --training.log_every 1"
    )
    wait_until(lambda: jobs.steps("pretrain-gga") >= 6, "the first epochs")
    jobs.cluster.workers[0].kill()
    jobs.cluster.add_worker()
    jobs.wait("pretrain")
    return jobs


def test_what_is_uploaded_is_small(tmp_path):
    """The packages that Ray makes of jobs/runtime_env.yaml; `ray job submit` takes 100 MiB."""
    from ray._private.runtime_env.packaging import create_package

    sizes = {}
    for folder in (".", "platform/rung"):
        package = tmp_path / f"{len(sizes)}.zip"
        create_package(str(ROOT / folder), package, include_gitignore=True)
        sizes[folder] = package.stat().st_size / 2**20
    print(f"uploaded: {sizes['.']:.2f} MiB working directory, {sizes['platform/rung']:.2f} MiB modules")
    assert sum(sizes.values()) < 5


def test_strangers_are_refused(cluster):
    environment = cluster.environment | {"RAY_AUTH_TOKEN": "0" * 64}
    del environment["RAY_AUTH_TOKEN_PATH"]
    done = subprocess.run(
        cluster.job_command("list"), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "authentication" in (done.stdout + done.stderr).lower()


def test_a_lost_node_is_replaced(pretrained):
    assert "Restarting from the last checkpoint (restart 1 of at most 3" in pretrained.logs("pretrain")
    summary = pretrained.file("pretrain-gga", "summary.json")
    assert summary["completed"]
    assert pretrained.file("pretrain-gga", "description.json")["first_step"] > 0, "the second start went on"


def test_finetuning_and_sweep_end_well(pretrained):
    code, output = pretrained.submit("finetune", "finetune", "--batch.structures 8 --training.epochs 1")
    assert code == 0, output
    assert pretrained.file("finetune", "summary.json")["completed"]
    small = "--batch.structures 8 --training.epochs 1 --sweep.trials 1"
    code, output = pretrained.submit("sweep", "sweep", small)
    assert code == 0, output
    assert {row["state"] for row in pretrained.file("sweep", "summary.json")["trials"]} == {"finished"}


@pytest.fixture(scope="module")
def stopped(pretrained):
    """A fine-tuning run that `ray job stop` ended."""
    settings = f"--run.name stopped --batch.structures 8 --training.log_every 1 {ENDLESS}"
    pretrained.start("stopped-1", "finetune", settings)
    wait_until(lambda: pretrained.steps("stopped") >= 6, "the first steps")
    code, output = pretrained.stop("stopped-1")
    assert code == 0, output
    return pretrained, settings


def test_a_stopped_job_leaves_a_checkpoint(stopped):
    jobs, _ = stopped
    assert jobs.status("stopped-1") == "stopped"
    assert "as asked; the same command resumes from there" in jobs.logs("stopped-1")
    assert not jobs.file("stopped", "summary.json")["completed"]


def test_a_job_resumes_when_the_head_is_back(stopped, redis):
    if redis is None:
        pytest.skip("no redis-server on this machine: apt-get install redis-server")
    jobs, settings = stopped
    reached = jobs.steps("stopped")
    jobs.start("stopped-2", "finetune", settings)
    wait_until(lambda: jobs.steps("stopped") > reached + 3, "steps after the stop")
    assert jobs.file("stopped", "description.json")["first_step"] >= reached

    jobs.cluster.head.kill()
    reached = jobs.steps("stopped")
    jobs.cluster.start_head()
    assert jobs.status("pretrain") == "succeeded", "the head remembers its jobs"
    jobs.start("stopped-3", "finetune", settings)
    wait_until(lambda: jobs.steps("stopped") > reached + 3, "steps after the head's restart")
    assert jobs.file("stopped", "description.json")["first_step"] > 0
    assert jobs.stop("stopped-3")[0] == 0
