"""Checks of a Ray cluster, and whether the ranks asked for fit on this machine."""

import json
import os
import sys
from typing import Any, Final

import psutil
import ray
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue] (compiled)

from rung.config.secrets import redacted
from rung.orchestration.checkup.finding import Finding, Subject, note, ok, problem, refusal
from rung.orchestration.checkup.machine import cpu_limit
from rung.orchestration.cluster import check_address
from rung.orchestration.resources import demand_of, shortage
from rung.training.hardware import node_hardware

_ANSWER_SECONDS: Final = 5.0
_WAY_IN: Final = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file, as the cluster's owner says"
)


def check_ray(subject: Subject) -> Finding:
    """Whether the cluster answers, lets us in, and has the same versions."""
    given = subject.launcher.address
    address, origin = given or os.environ.get("RAY_ADDRESS"), "launcher.address" if given else "RAY_ADDRESS"
    if subject.launcher.kind != "ray":
        return ok(f"not used by this job (launcher.kind or parallel.kind {subject.launcher.kind})")
    if not address or address == "local":
        return ok(f"Ray {ray.__version__}; no address is set: a job starts a cluster on this machine")
    try:
        check_address(address)
    except ValueError as error:
        return refusal(error, f"correct {origin}")
    if not address.rpartition(":")[2].isdigit():
        return note(f"{origin} is {address!r}: Ray looks for the cluster when a job starts")
    return _cluster(address, origin)


def _cluster(address: str, origin: str) -> Finding:
    try:
        cluster = cluster_metadata(address)
    except Exception as error:  # noqa: BLE001 (Ray has kinds of errors of its own for each layer)
        if "AuthToken" in str(error):
            return problem(f"{address} ({origin}) refuses: this machine's token is missing or wrong", _WAY_IN)
        reason = redacted(str(error)).strip().partition("\n")[0] or type(error).__name__
        return problem(
            f"what answers at {address} ({origin}) is no Ray cluster, or is not well: {reason}", f"correct {origin}"
        )
    mine = {"ray_version": ray.__version__, "python_version": ".".join(map(str, sys.version_info[:3]))}
    wrong = [
        f"{key.partition('_')[0]} {cluster.get(key)} there, {version} here"
        for key, version in mine.items()
        if cluster.get(key) != version
    ]
    if wrong:
        return problem(
            f"{address} ({origin}): {', '.join(wrong)}",
            "install the cluster's versions here, or submit the job: ray job submit",
        )
    return ok(f"{address} ({origin}) answers, with the same versions")


def cluster_metadata(address: str) -> dict[str, Any]:
    """What a cluster says about itself, ray_version and python_version among it, without joining it."""
    client = GcsClient(address=address)
    text = client.internal_kv_get(CLUSTER_METADATA_KEY, namespace=KV_NAMESPACE_CLUSTER, timeout=_ANSWER_SECONDS)
    return json.loads(text or b"{}")


def check_ranks(subject: Subject) -> Finding:
    """Whether this machine holds the ranks that the config asks for."""
    launcher = subject.launcher
    if launcher.kind != "ray":
        return ok("none besides this process" if launcher.kind == "local" else "torchrun starts them")
    if launcher.address or os.environ.get("RAY_ADDRESS"):
        return ok("the cluster decides when the job starts")
    facts = node_hardware()
    cores = min(facts["cores"], cpu_limit() or facts["cores"])
    node = {"CPU": float(int(cores) or 1), "GPU": float(len(facts["gpus"]))}
    demand = demand_of(launcher, [node])
    lack = shortage(demand, [node])
    if lack is not None:
        return refusal(ValueError(lack), "lower launcher.num_workers")
    memory = psutil.virtual_memory().available / 2**30
    return ok(f"{demand} fit on this machine ({node['CPU']:g} CPUs, {node['GPU']:g} GPUs, {memory:.0f} GiB free)")
