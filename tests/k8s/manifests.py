"""Rendering, and what is wrong with a set of manifests: strict schemas, and references between objects."""

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

Object = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
KUBECTL = Path(sys.executable).with_name("kubectl")
SECRETS = {"mlflow": {"backend-store-uri", "artifacts", "postgres-password"}, "redis": {"password"}}
"""Made by the user, as k8s/README.md says; never in the repository."""
CRDS = {
    "RayCluster": "ray.io_rayclusters.yaml",
    "RayJob": "ray.io_rayjobs.yaml",
    "ResourceFlavor": "kueue.x-k8s.io_resourceflavors.yaml",
    "ClusterQueue": "kueue.x-k8s.io_clusterqueues.yaml",
    "LocalQueue": "kueue.x-k8s.io_localqueues.yaml",
    "PodMonitor": "monitoring.coreos.com_podmonitors.yaml",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules.yaml",
}
SUBMISSION_MODES = {"HTTPMode", "K8sJobMode", "SidecarMode", "InteractiveMode"}
QUANTITY = re.compile(r"^\d+(\.\d+)?(m|k|Ki|Mi|Gi|Ti|M|G|T)?$")
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def render(folder: Path) -> list[Object]:
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def crd_validator(file: Path, version: str) -> Draft202012Validator:
    crd = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    served = {entry["name"]: entry["schema"]["openAPIV3Schema"] for entry in crd["spec"]["versions"]}
    schema = served[version]
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(closed(schema))


def closed(schema: Any) -> Any:
    """The schema without room for unknown fields, as the API server's strict validation reads it."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(result.get("properties"), dict) and result.get("type") == "object":
        result.setdefault("additionalProperties", False)
    if result.pop("x-kubernetes-int-or-string", False):
        result.pop("type", None)
    return result


@cache
def core_schema(file: str, version: str) -> Draft202012Validator:
    """Strict schema of one kind; kubernetes-validate itself reads its 2 MB of definitions anew for each object."""
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    registry = Registry().with_resources([definitions(version)])
    return Draft202012Validator(schema_contents(f"{folder}/{file}.json", version), registry=registry)


@cache
def definitions(version: str) -> tuple[str, Resource[Any]]:
    contents = schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    resource = Resource.from_contents(contents)
    return resource.id() or "", resource


def core_validator(item: Object, version: str) -> Iterator[Any]:
    api_version = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", item["apiVersion"])
    return core_schema(f"{item['kind'].lower()}-{api_version}", version).iter_errors(item)


def schema_faults(item: Object, version: str, crds: Path | None) -> Iterator[str]:
    name = f"{item['kind']}/{item['metadata']['name']}"
    if item["kind"] not in CRDS:
        yield from (f"{name}: {error.json_path}: {error.message}" for error in core_validator(item, version))
        return
    for pod in pods([item]):
        bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod["spec"]}
        yield from (f"{name}: pod: {fault}" for fault in schema_faults(bare, version, None))
    if crds:
        validator = crd_validator(crds / CRDS[item["kind"]], item["apiVersion"].split("/")[1])
        yield from (f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(item))


def ray_spec(item: Object) -> Object:
    return item["spec"]["rayClusterSpec"] if item["kind"] == "RayJob" else item["spec"]


def pods(items: list[Object]) -> Iterator[Object]:
    """Every pod template, those of Ray resources included, with the labels that KubeRay will add."""
    for item in items:
        if item["kind"] in ("Deployment", "StatefulSet"):
            yield item["spec"]["template"] | {"claims": item["spec"].get("volumeClaimTemplates", [])}
        if item["kind"] in ("RayCluster", "RayJob"):
            spec = ray_spec(item)
            for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
                template = copy.deepcopy(group["template"])
                template.setdefault("metadata", {}).setdefault("labels", {})["ray.io/is-ray-node"] = "yes"
                yield template


def amount(quantity: Any) -> float:
    match = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(quantity))
    assert match, quantity
    return float(match[1]) * UNITS[match[2]]


def reference_faults(items: list[Object], around: list[Object]) -> Iterator[str]:
    """What no schema sees. `around` are the objects that are in the namespace already."""
    known = {(item["kind"], item["metadata"]["name"]): item for item in [*around, *items]}
    for pod in pods(items):
        yield from pod_faults(pod, known)
    everything = list(pods([*around, *items]))
    for item in items:
        name, spec = f"{item['kind']}/{item['metadata']['name']}", item.get("spec", {})
        if item["kind"] in ("Deployment", "StatefulSet"):
            labels = spec["template"]["metadata"].get("labels", {})
            if not spec["selector"]["matchLabels"].items() <= labels.items():
                yield f"{name}: its selector does not match its pods"
        if item["kind"] == "Service":
            yield from service_faults(name, spec, everything)
        selector = {"NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector", "PodMonitor": "selector"}
        if item["kind"] in selector:
            wanted = spec[selector[item["kind"]]].get("matchLabels", {})
            if not any(wanted.items() <= pod["metadata"]["labels"].items() for pod in everything):
                yield f"{name}: selects no pod"
        if item["kind"] == "LocalQueue" and ("ClusterQueue", spec["clusterQueue"]) not in known:
            yield f"{name}: no ClusterQueue {spec['clusterQueue']}"
        if item["kind"] in ("RayCluster", "RayJob"):
            yield from ray_faults(name, item)


def service_faults(name: str, spec: Object, everything: list[Object]) -> Iterator[str]:
    chosen = [pod for pod in everything if spec["selector"].items() <= pod["metadata"]["labels"].items()]
    if not chosen:
        yield f"{name}: selects no pod"
    for pod in chosen:
        ports = {value for c in pod["spec"]["containers"] for p in c.get("ports", []) for value in p.values()}
        yield from (f"{name}: no port {p['targetPort']}" for p in spec["ports"] if p["targetPort"] not in ports)


def pod_faults(pod: Object, known: dict[tuple[str, str], Object]) -> Iterator[str]:
    spec = pod["spec"]
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    volumes |= {claim["metadata"]["name"] for claim in pod.get("claims", [])}
    for volume in spec.get("volumes", []):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and ("PersistentVolumeClaim", claim) not in known:
            yield f"no PersistentVolumeClaim {claim}"
    account = spec.get("serviceAccountName")
    if account and ("ServiceAccount", account) not in known:
        yield f"no ServiceAccount {account}"
    if account and spec.get("automountServiceAccountToken") is not False:
        yield "a service account's token is mounted"
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "the pod is not restricted"
    if spec.get("hostNetwork") or spec.get("hostPID"):
        yield "the pod shares its node's network or processes"
    for container in spec["containers"]:
        yield from container_faults(container, volumes, known)


def container_faults(container: Object, volumes: set[str], known: dict[tuple[str, str], Object]) -> Iterator[str]:
    image = container["image"]
    if not re.search(r":[^:/]*\d[^:/]*$|@sha256:", image) or image.endswith(":latest"):
        yield f"the image {image} is not pinned"
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which is no volume"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "privileges may grow"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "capabilities are not dropped"
    yield from environment_faults(container, known)
    yield from resource_faults(container.get("resources", {}))


def environment_faults(container: Object, known: dict[tuple[str, str], Object]) -> Iterator[str]:
    for source in container.get("envFrom", []):
        if "configMapRef" in source and ("ConfigMap", source["configMapRef"]["name"]) not in known:
            yield f"no ConfigMap {source['configMapRef']['name']}"
    for variable in container.get("env", []):
        key = variable.get("valueFrom", {}).get("secretKeyRef")
        if key and key["key"] not in SECRETS.get(key["name"], ()):
            yield f"no key {key['key']} in a Secret {key['name']}"
        if "value" in variable and re.search("PASSWORD|TOKEN|SECRET", variable["name"]):
            yield f"{variable['name']} is in plain text"


def resource_faults(resources: Object) -> Iterator[str]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    bad = [str(q) for q in [*requests.values(), *limits.values()] if not QUANTITY.match(str(q))]
    yield from (f"{q} is no quantity" for q in bad)
    if bad:
        return
    if "memory" not in requests or "memory" not in limits or "cpu" not in requests:
        yield "CPU and memory are not asked for"
    for key, request in requests.items():
        if "/" in key and limits.get(key) != request:
            yield f"{key} needs a limit like its request"
        elif key in limits and amount(request) > amount(limits[key]):
            yield f"asks for more {key} than its limit"


def ray_faults(name: str, item: Object) -> Iterator[str]:
    spec, job = ray_spec(item), item["spec"]
    if spec.get("authOptions", {}).get("mode") != "token":
        yield f"{name}: anybody may submit jobs"
    head = spec["headGroupSpec"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield f"{name}: work may land on the head"
    mounts = head["template"]["spec"]["containers"][0].get("volumeMounts")
    for group in spec["workerGroupSpecs"]:
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{name}: replicas are outside their bounds"
        worker = group["template"]["spec"]["containers"][0]
        if worker.get("volumeMounts") != mounts:
            yield f"{name}: head and workers mount different things"
        if worker["image"] != head["template"]["spec"]["containers"][0]["image"]:
            yield f"{name}: head and workers run different images"
    if item["kind"] == "RayJob":
        if job["submissionMode"] not in SUBMISSION_MODES:
            yield f"{name}: unknown submissionMode"
        if "ttlSecondsAfterFinished" in job and not job.get("shutdownAfterJobFinishes"):
            yield f"{name}: nothing is cleaned up"
