"""Rendering, and what strict schemas find wrong with a manifest."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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
CRDS = {
    "RayCluster": "ray.io_rayclusters.yaml",
    "RayJob": "ray.io_rayjobs.yaml",
    "ResourceFlavor": "kueue.x-k8s.io_resourceflavors.yaml",
    "ClusterQueue": "kueue.x-k8s.io_clusterqueues.yaml",
    "LocalQueue": "kueue.x-k8s.io_localqueues.yaml",
    "PodMonitor": "monitoring.coreos.com_podmonitors.yaml",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules.yaml",
}


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
        yield from (f"{name}: {fault}" for fault in schema_faults(pod.bare(), version, None))
    if crds:
        validator = crd_validator(crds / CRDS[item["kind"]], item["apiVersion"].split("/")[1])
        yield from (f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(item))


def ray_spec(item: Object) -> Object:
    return item["spec"]["rayClusterSpec"] if item["kind"] == "RayJob" else item["spec"]


@dataclass(frozen=True)
class Pod:
    """A pod as it will be, with the labels that its owner's controller adds."""

    owner: str
    labels: dict[str, str]
    spec: Object
    claims: tuple[str, ...] = ()
    """Volumes that a StatefulSet makes for it."""

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def bare(self) -> Object:
        """A Pod object, for tools that do not look inside Ray's resources."""
        name = re.sub("[^a-z0-9]+", "-", self.owner.lower())
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": self.spec}


def pods(items: list[Object]) -> Iterator[Pod]:
    """Every pod template, those of Ray resources included."""
    for item in items:
        owner = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] in ("Deployment", "StatefulSet"):
            template = item["spec"]["template"]
            claims = tuple(claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", []))
            yield Pod(owner, template["metadata"].get("labels", {}), template["spec"], claims)
        if item["kind"] in ("RayCluster", "RayJob"):
            spec = ray_spec(item)
            cluster = item["metadata"]["name"] + ("-x7k2p" if item["kind"] == "RayJob" else "")
            for role, group in [("head", spec["headGroupSpec"]), *(("worker", g) for g in spec["workerGroupSpecs"])]:
                added = {"ray.io/is-ray-node": "yes", "ray.io/node-type": role, "ray.io/cluster": cluster}
                labels = group["template"].get("metadata", {}).get("labels", {}) | added
                yield Pod(f"{owner}/{role}", labels, group["template"]["spec"])
