"""A cluster of three nodes on this machine, and the jobs of k8s/jobs on it, as `ray job submit` sends them.

python jobs/cluster_demo.py

All lands in demo/cluster and is made once. Ctrl-C stops the job at a checkpoint, and takes the cluster down.
"""

import re
import signal
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen, run

from rung.orchestration.local_cluster import LocalCluster

FOLDER = Path("demo/cluster").absolute()
TRAINED = f"--run.storage {FOLDER}/runs --data.cache {FOLDER}/cache"
PRETRAINED = f"--data.path {FOLDER}/data/r2scan --model.init {FOLDER}/runs/pretrain-gga"
JOBS = {
    "prepare": f"jobs/prepare_data.py --config jobs/configs/local/prepare.yaml --output {FOLDER}/data/gga",
    "prepare-r2scan": "jobs/prepare_data.py --config jobs/configs/local/prepare_r2scan.yaml"
    f" --output {FOLDER}/data/r2scan",
    "pretrain": f"jobs/pretrain.py --config jobs/configs/local/pretrain.yaml {TRAINED} --data.path {FOLDER}/data/gga",
    "finetune": f"jobs/finetune.py --config jobs/configs/local/finetune.yaml {TRAINED} {PRETRAINED}",
    "sweep": f"jobs/sweep.py --config jobs/configs/local/sweep.yaml {TRAINED} {PRETRAINED}",
}
NOISE = re.compile(r"^\s*$|(INFO|SUCC|WARNING) (cli|sdk|packaging|dashboard_sdk|job_manager|working_dir)\.py|^Running ")


def submit(cluster: LocalCluster, name: str) -> int:
    """Submit a job, show what it says, and return its exit code."""
    print(f"\n$ ray job submit --runtime-env jobs/runtime_env.yaml -- python {JOBS[name]}", flush=True)
    options = ["submit", "--submission-id", name, "--runtime-env", "jobs/runtime_env.yaml", "--", "python"]
    command = cluster.job_command(*options, *JOBS[name].split())
    with Popen(command, env=cluster.environment, stdout=PIPE, stderr=STDOUT, text=True) as process:  # noqa: S603
        for line in process.stdout or ():
            if not NOISE.search(line):
                print(line, end="", flush=True)
    return process.returncode


def main() -> int:
    """Run all jobs, one after the other; 0, 1 where one failed, 130 where it was interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing stays behind
    print("Starting a head and two workers with two CPUs each ...", flush=True)
    with LocalCluster() as cluster:
        print(f"Dashboard: {cluster.dashboard} (token: {cluster.token_file.read_text()})", flush=True)
        for name in JOBS:
            try:
                if submit(cluster, name) != 0:
                    return 1
            except KeyboardInterrupt:
                print(f"\nStopping {name}; it goes on from its checkpoint next time.", flush=True)
                run(cluster.job_command("stop", name), env=cluster.environment, check=False)  # noqa: S603
                return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
