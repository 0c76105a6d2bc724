"""What no schema sees: references between objects, restricted pods, quantities, and what KubeRay asks for."""

import re
from collections.abc import Iterator

from tests.k8s.manifests import Object, Pod, pods, ray_spec

SECRETS = {"mlflow": {"backend-store-uri", "artifacts", "postgres-password"}, "redis": {"password"}}
"""Made by the user, as k8s/README.md says; never in the repository."""
SUBMISSION_MODES = {"HTTPMode", "K8sJobMode", "SidecarMode", "InteractiveMode"}
QUANTITY = re.compile(r"^\d+(\.\d+)?(m|k|Ki|Mi|Gi|Ti|M|G|T)?$")
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
MAX_RAY_NAME = 47
"""KubeRay adds what it needs to tell pods apart."""
SELECTORS = {"NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector", "PodMonitor": "selector"}


def amount(quantity: object) -> float:
    match = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(quantity))
    assert match, quantity
    return float(match[1]) * UNITS[match[2]]


def reference_faults(items: list[Object]) -> Iterator[str]:
    known = {(item["kind"], item["metadata"]["name"]) for item in items}
    everything = list(pods(items))
    for pod in everything:
        yield from (f"{pod.owner}: {fault}" for fault in pod_faults(pod, known))
    for item in items:
        name = f"{item['kind']}/{item['metadata']['name']}"
        yield from (f"{name}: {fault}" for fault in object_faults(item, known, everything))


def object_faults(item: Object, known: set[tuple[str, str]], everything: list[Pod]) -> Iterator[str]:
    kind, name, spec = item["kind"], item["metadata"]["name"], item.get("spec", {})
    if not NAME.fullmatch(name):
        yield f"{name!r} is no name: lower case letters, digits, - and ."
    if kind in ("Deployment", "StatefulSet"):
        if not spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"].get("labels", {}).items():
            yield "its selector does not match its pods"
    elif kind == "Service":
        yield from service_faults(spec, everything)
    elif kind in SELECTORS:
        yield from selector_faults(item, everything)
    elif kind == "LocalQueue" and ("ClusterQueue", spec["clusterQueue"]) not in known:
        yield f"no ClusterQueue {spec['clusterQueue']}"
    elif kind in ("RayCluster", "RayJob"):
        yield from ray_faults(item)


def service_faults(spec: Object, everything: list[Pod]) -> Iterator[str]:
    chosen = [pod for pod in everything if spec["selector"].items() <= pod.labels.items()]
    if not chosen:
        yield "selects no pod"
    for pod in chosen:
        ports = port_names(pod)
        yield from (f"no port {port['targetPort']}" for port in spec["ports"] if port["targetPort"] not in ports)


def selector_faults(item: Object, everything: list[Pod]) -> Iterator[str]:
    wanted = item["spec"][SELECTORS[item["kind"]]].get("matchLabels", {})
    chosen = [pod for pod in everything if wanted.items() <= pod.labels.items()]
    if not chosen:
        yield "selects no pod"
        return
    for endpoint in item["spec"].get("podMetricsEndpoints", []):
        if not any(endpoint.get("port") in port_names(pod) for pod in chosen):
            yield f"no port {endpoint.get('port')}"


def port_names(pod: Pod) -> set[object]:
    return {value for container in pod.containers for port in container.get("ports", []) for value in port.values()}


def pod_faults(pod: Pod, known: set[tuple[str, str]]) -> Iterator[str]:
    spec = pod.spec
    for volume in spec.get("volumes", []):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and ("PersistentVolumeClaim", claim) not in known:
            yield f"no PersistentVolumeClaim {claim}"
        if "hostPath" in volume:
            yield f"the volume {volume['name']} is a folder of the node"
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
    volumes = {volume["name"] for volume in spec.get("volumes", [])} | set(pod.claims)
    for container in pod.containers:
        yield from container_faults(container, volumes, known)


def container_faults(container: Object, volumes: set[str], known: set[tuple[str, str]]) -> Iterator[str]:
    image = container["image"]
    if not re.search(r":[^:/]*\d[^:/]*$|@sha256:", image) or image.endswith(":latest"):
        yield f"the image {image} is not pinned"
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which is no volume"
    for port in container.get("ports", []):
        if len(port.get("name", "")) > 15:
            yield f"{port['name']} is no name of a port: 15 characters at most"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "privileges may grow"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "capabilities are not dropped"
    yield from environment_faults(container, known)
    yield from resource_faults(container.get("resources", {}))


def environment_faults(container: Object, known: set[tuple[str, str]]) -> Iterator[str]:
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


def ray_faults(item: Object) -> Iterator[str]:
    spec = ray_spec(item)
    if len(item["metadata"]["name"]) > MAX_RAY_NAME:
        yield f"its name is longer than {MAX_RAY_NAME} characters"
    if spec.get("authOptions", {}).get("mode") != "token":
        yield "anybody may submit jobs"
    head = spec["headGroupSpec"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield "work may land on the head"
    for group in spec["workerGroupSpecs"]:
        yield from worker_faults(group, head["template"]["spec"]["containers"][0])
    if item["kind"] == "RayJob":
        if item["spec"]["submissionMode"] not in SUBMISSION_MODES:
            yield f"unknown submissionMode {item['spec']['submissionMode']}"
        if "ttlSecondsAfterFinished" in item["spec"] and not item["spec"].get("shutdownAfterJobFinishes"):
            yield "nothing is cleaned up"
    elif spec.get("enableInTreeAutoscaling"):
        security = spec.get("autoscalerOptions", {}).get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("allowPrivilegeEscalation") is not False:
            yield "the autoscaler's container is not restricted"


def worker_faults(group: Object, head: Object) -> Iterator[str]:
    counts = [group.get(name) for name in ("minReplicas", "replicas", "maxReplicas")]
    if all(isinstance(count, int) for count in counts) and counts != sorted(counts):
        yield "replicas are outside their bounds"
    worker = group["template"]["spec"]["containers"][0]
    if worker.get("volumeMounts") != head.get("volumeMounts"):
        yield "head and workers mount different things"
    if worker["image"] != head["image"]:
        yield "head and workers run different images"
    if worker.get("envFrom") != head.get("envFrom"):
        yield "head and workers have different environments"
