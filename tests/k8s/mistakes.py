"""Mistakes that people make in manifests, each planted into a sound set: kind, name, path, new value, what is said."""

import copy
from typing import Any

from tests.k8s.manifests import Object

GONE = object()

MLFLOW = ("Deployment", "mlflow")
CLUSTER = ("RayCluster", "rung-ray")
JOB = ("RayJob", "pretrain")
POD = "spec.template.spec."
BOX = POD + "containers.0."
HEAD = "spec.headGroupSpec.template.spec."
WORKER = "spec.workerGroupSpecs.0.template.spec."
JOB_WORKER = "spec.rayClusterSpec.workerGroupSpecs.0."
UNKNOWN = "Additional properties are not allowed ('{}' was unexpected)"

Mistake = tuple[tuple[str, str], str, Any, str]

MISTAKES: list[Mistake] = [
    # fields, types, names
    (MLFLOW, "spec.replica", 1, "Deployment/mlflow: $.spec: " + UNKNOWN.format("replica")),
    (MLFLOW, "spec.replicas", "one", "$.spec.replicas: 'one' is not of type 'integer'"),
    (MLFLOW, BOX + "volumeMounts.0.path", "/tmp", "volumeMounts[0]: " + UNKNOWN.format("path")),
    (MLFLOW, BOX + "volumeMounts.0.mountPath", GONE, "volumeMounts[0]: 'mountPath' is a required property"),
    (MLFLOW, BOX + "ports.0.containerPort", "5000", "ports[0].containerPort: '5000' is not of type 'integer'"),
    (MLFLOW, BOX + "livenessProbe.httpget", {"path": "/health"}, "livenessProbe: " + UNKNOWN.format("httpget")),
    (MLFLOW, POD + "initContainers.0.comand", ["true"], "initContainers[0]: " + UNKNOWN.format("comand")),
    (MLFLOW, "metadata.name", "MLflow", "'MLflow' is no name"),
    (("Service", "mlflow"), "spec.ports.0.prot", 5000, "Service/mlflow: $.spec.ports[0]: " + UNKNOWN.format("prot")),
    (("NetworkPolicy", "mlflow"), "spec.ingress.0.form", [], "$.spec.ingress[0]: " + UNKNOWN.format("form")),
    (("PersistentVolumeClaim", "data"), "spec.accessMode", [], "$.spec: " + UNKNOWN.format("accessMode")),
    (("ConfigMap", "rung-env"), "data.OMP_NUM_THREADS", 1, "$.data.OMP_NUM_THREADS: 1 is not of type 'string'"),
    (CLUSTER, HEAD + "containers.0.imagePullPolice", "Always", "containers[0]: " + UNKNOWN.format("imagePullPolice")),
    (CLUSTER, WORKER + "tolerations.0.operater", "Exists", "tolerations[0]: " + UNKNOWN.format("operater")),
    (CLUSTER, WORKER + "containers.0.ports.0.name", "metrics-of-this-node", "is no name of a port"),
    (JOB, "metadata.name", "p" * 48, "its name is longer than 47 characters"),
    # selectors and references
    (MLFLOW, "spec.selector.matchLabels", {"app": "mlflow"}, "Deployment/mlflow: its selector does not match its pods"),
    (MLFLOW, BOX + "volumeMounts.0.name", "temp", "Deployment/mlflow: mounts temp, which is no volume"),
    (MLFLOW, BOX + "env.0.valueFrom.secretKeyRef.name", "db", "no key backend-store-uri in a Secret db"),
    (MLFLOW, BOX + "env.0.valueFrom.secretKeyRef.key", "uri", "no key uri in a Secret mlflow"),
    (MLFLOW, BOX + "ports.0.name", "web", "Service/mlflow: no port http"),
    (MLFLOW, POD + "serviceAccountName", "rungs", "Deployment/mlflow: no ServiceAccount rungs"),
    (("Service", "mlflow"), "spec.selector", {"app": "mlflow"}, "Service/mlflow: selects no pod"),
    (("Service", "mlflow"), "spec.ports.0.targetPort", "web", "Service/mlflow: no port web"),
    (("NetworkPolicy", "ray"), "spec.podSelector.matchLabels", {"ray": "yes"}, "NetworkPolicy/ray: selects no pod"),
    (
        ("NetworkPolicy", "autoscaler"),
        "spec.podSelector.matchLabels",
        {"ray.io/cluster": "ray"},
        "NetworkPolicy/autoscaler: selects no pod",
    ),
    (
        ("PodDisruptionBudget", "mlflow"),
        "spec.selector.matchLabels",
        {"app": "mlflow"},
        "PodDisruptionBudget/mlflow: selects no pod",
    ),
    (("PersistentVolumeClaim", "data"), "metadata.name", "dataset", "RayJob/sweep/head: no PersistentVolumeClaim data"),
    (("ConfigMap", "rung-env"), "metadata.name", "env", "RayCluster/rung-ray/worker: no ConfigMap rung-env"),
    (("ServiceAccount", "rung"), "metadata.name", "ray", "RayJob/prepare/worker: no ServiceAccount rung"),
    (CLUSTER, HEAD + "volumes.0.persistentVolumeClaim.claimName", "datas", "no PersistentVolumeClaim datas"),
    (CLUSTER, HEAD + "containers.0.envFrom.0.configMapRef.name", "env", "head: no ConfigMap env"),
    (CLUSTER, WORKER + "volumes.3.name", "dshm", "worker: mounts shm, which is no volume"),
    (("LocalQueue", "rung"), "spec.clusterQueue", "gpus", "LocalQueue/rung: no ClusterQueue gpus"),
    (("PodMonitor", "ray"), "spec.selector.matchLabels", {"app": "ray"}, "PodMonitor/ray: selects no pod"),
    (("PodMonitor", "ray"), "spec.podMetricsEndpoints.1.port", "autoscaler", "PodMonitor/ray: no port autoscaler"),
    # quantities
    (MLFLOW, BOX + "resources.limits.memory", "512Mi", "Deployment/mlflow: asks for more memory than its limit"),
    (MLFLOW, BOX + "resources.requests.memory", "1GiB", "Deployment/mlflow: 1GiB is no quantity"),
    (MLFLOW, BOX + "resources.requests.cpu", "250 m", "Deployment/mlflow: 250 m is no quantity"),
    (MLFLOW, BOX + "resources", {}, "Deployment/mlflow: CPU and memory are not asked for"),
    (CLUSTER, WORKER + "containers.0.resources.limits", {"memory": "256Gi"}, "nvidia.com/gpu needs a limit"),
    (
        JOB,
        JOB_WORKER + "template.spec.containers.0.resources.requests.memory",
        "512Gi",
        "RayJob/pretrain/worker: asks for more memory than its limit",
    ),
    # security
    (MLFLOW, BOX + "image", "ghcr.io/mlflow/mlflow", "the image ghcr.io/mlflow/mlflow is not pinned"),
    (MLFLOW, BOX + "image", "ghcr.io/mlflow/mlflow:latest", "the image ghcr.io/mlflow/mlflow:latest is not pinned"),
    (MLFLOW, POD + "initContainers.0.image", "mlflow:full", "the image mlflow:full is not pinned"),
    (MLFLOW, BOX + "env.2", {"name": "DB_PASSWORD", "value": "rung"}, "DB_PASSWORD is in plain text"),
    (MLFLOW, BOX + "securityContext.allowPrivilegeEscalation", True, "Deployment/mlflow: privileges may grow"),
    (MLFLOW, BOX + "securityContext.privileged", True, "Deployment/mlflow: privileges may grow"),
    (MLFLOW, BOX + "securityContext.capabilities", GONE, "Deployment/mlflow: capabilities are not dropped"),
    (MLFLOW, POD + "automountServiceAccountToken", GONE, "a service account's token is mounted"),
    (MLFLOW, POD + "securityContext.runAsNonRoot", GONE, "Deployment/mlflow: the pod is not restricted"),
    (MLFLOW, POD + "securityContext.seccompProfile", GONE, "Deployment/mlflow: the pod is not restricted"),
    (MLFLOW, POD + "hostNetwork", True, "the pod shares its node's network or processes"),
    (CLUSTER, WORKER + "volumes.2", {"name": "cache", "hostPath": {"path": "/mnt"}}, "cache is a folder of the node"),
    (CLUSTER, "spec.authOptions", GONE, "RayCluster/rung-ray: anybody may submit jobs"),
    (CLUSTER, "spec.authOptions.mode", "disabled", "RayCluster/rung-ray: anybody may submit jobs"),
    (CLUSTER, "spec.autoscalerOptions.securityContext", GONE, "the autoscaler's container is not restricted"),
    (JOB, "spec.rayClusterSpec.authOptions", GONE, "RayJob/pretrain: anybody may submit jobs"),
    # what KubeRay lets pass
    (CLUSTER, "spec.headGroupSpec.rayStartParams.num-cpus", "4", "work may land on the head"),
    (CLUSTER, HEAD + "containers.0.image", "rung:0.1.0-ray2.59.0", "head and workers run different images"),
    (CLUSTER, HEAD + "containers.0.volumeMounts.0.mountPath", "/data", "head and workers mount different things"),
    (CLUSTER, WORKER + "containers.0.volumeMounts.1.readOnly", True, "head and workers mount different things"),
    (CLUSTER, WORKER + "containers.0.envFrom", GONE, "head and workers have different environments"),
    (CLUSTER, "spec.workerGroupSpecs.0.minReplicas", 3, "RayCluster/rung-ray: replicas are outside their bounds"),
    (JOB, JOB_WORKER + "replicas", 5, "RayJob/pretrain: replicas are outside their bounds"),
    (JOB, "spec.submissionMode", "HttpMode", "RayJob/pretrain: unknown submissionMode HttpMode"),
    (JOB, "spec.shutdownAfterJobFinishes", False, "RayJob/pretrain: nothing is cleaned up"),
]

CRD_MISTAKES: list[Mistake] = [
    (CLUSTER, "spec.enableInTreeAutoscaler", True, "$.spec: " + UNKNOWN.format("enableInTreeAutoscaler")),
    (CLUSTER, "spec.authOptions.mode", "tokens", "'tokens' is not one of ['disabled', 'token']"),
    (CLUSTER, "spec.workerGroupSpecs.0.maxReplica", 2, "workerGroupSpecs[0]: " + UNKNOWN.format("maxReplica")),
    (CLUSTER, "spec.workerGroupSpecs.0.replicas", "2", "replicas: '2' is not of type 'integer'"),
    (JOB, "spec.backoffLimits", 3, "$.spec: " + UNKNOWN.format("backoffLimits")),
    (JOB, "spec.ttlSecondsAfterFinished", "600", "ttlSecondsAfterFinished: '600' is not of type 'integer'"),
    (("ClusterQueue", "rung"), "spec.resourceGroup", [], "$.spec: " + UNKNOWN.format("resourceGroup")),
    (
        ("PodMonitor", "ray"),
        "spec.podMetricsEndpoints.0.ports",
        "metrics",
        "podMetricsEndpoints[0]: " + UNKNOWN.format("ports"),
    ),
    (
        ("PrometheusRule", "rung"),
        "spec.groups.0.rules.0.expression",
        "up",
        "rules[0]: " + UNKNOWN.format("expression"),
    ),
]


def plant(items: list[Object], where: tuple[str, str], path: str, value: Any) -> list[Object]:
    """A copy of the manifests with one mistake in it."""
    result = copy.deepcopy(items)
    place: Any = next(item for item in result if (item["kind"], item["metadata"]["name"]) == where)
    *parents, last = path.split(".")
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    if value is GONE:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return result
