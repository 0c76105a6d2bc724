"""Mistakes that people make in manifests, each planted into a sound set: kind, name, path, new value."""

import copy
from typing import Any

from tests.k8s.manifests import Object

GONE = object()

MLFLOW = ("Deployment", "mlflow")
CLUSTER = ("RayCluster", "rung-ray")
JOB = ("RayJob", "pretrain")
BOX = "spec.template.spec.containers.0."
HEAD = "spec.headGroupSpec.template.spec."
WORKER = "spec.workerGroupSpecs.0.template.spec."
JOB_WORKER = "spec.rayClusterSpec.workerGroupSpecs.0."

MISTAKES: list[tuple[tuple[str, str], str, Any]] = [
    (MLFLOW, "spec.replica", 1),
    (MLFLOW, "spec.replicas", "one"),
    (MLFLOW, "spec.selector.matchLabels", {"app.kubernetes.io/name": "mlflw"}),
    (MLFLOW, BOX + "image", "ghcr.io/mlflow/mlflow"),
    (MLFLOW, BOX + "image", "ghcr.io/mlflow/mlflow:latest"),
    (MLFLOW, BOX + "resources.limits.memory", "512Mi"),
    (MLFLOW, BOX + "resources.requests.memory", "1GiB"),
    (MLFLOW, BOX + "resources.requests.cpu", "250 m"),
    (MLFLOW, BOX + "resources", {}),
    (MLFLOW, BOX + "volumeMounts.0.name", "temp"),
    (MLFLOW, BOX + "volumeMounts.0.path", "/tmp"),
    (MLFLOW, BOX + "volumeMounts.0.mountPath", GONE),
    (MLFLOW, BOX + "env.0.valueFrom.secretKeyRef.name", "mlflow-secret"),
    (MLFLOW, BOX + "env.0.valueFrom.secretKeyRef.key", "uri"),
    (MLFLOW, BOX + "env.2", {"name": "POSTGRES_PASSWORD", "value": "rung"}),
    (MLFLOW, BOX + "ports.0.name", "web"),
    (MLFLOW, BOX + "ports.0.containerPort", "5000"),
    (MLFLOW, BOX + "livenessProbe.httpget", {"path": "/health", "port": 5000}),
    (MLFLOW, BOX + "securityContext.allowPrivilegeEscalation", True),
    (MLFLOW, BOX + "securityContext.privileged", True),
    (MLFLOW, BOX + "securityContext.capabilities", GONE),
    (MLFLOW, "spec.template.spec.automountServiceAccountToken", GONE),
    (MLFLOW, "spec.template.spec.serviceAccountName", "rungs"),
    (MLFLOW, "spec.template.spec.securityContext.runAsNonRoot", GONE),
    (MLFLOW, "spec.template.spec.securityContext.seccompProfile", GONE),
    (MLFLOW, "spec.template.spec.hostNetwork", True),
    (("Service", "mlflow"), "spec.selector", {"app": "mlflow"}),
    (("Service", "mlflow"), "spec.ports.0.targetPort", "web"),
    (("Service", "mlflow"), "spec.ports.0.prot", 5000),
    (("NetworkPolicy", "ray"), "spec.podSelector.matchLabels", {"ray.io/is-ray-node": "true"}),
    (("NetworkPolicy", "mlflow"), "spec.ingress.0.form", []),
    (("PodDisruptionBudget", "mlflow"), "spec.selector.matchLabels", {"app": "mlflow"}),
    (("PersistentVolumeClaim", "data"), "spec.accessMode", ["ReadWriteMany"]),
    (("PersistentVolumeClaim", "data"), "metadata.name", "dataset"),
    (("ConfigMap", "rung-env"), "metadata.name", "rung-environment"),
    (("ConfigMap", "rung-env"), "data.OMP_NUM_THREADS", 1),
    (("ServiceAccount", "rung"), "metadata.name", "ray"),
    (CLUSTER, "spec.authOptions", GONE),
    (CLUSTER, "spec.authOptions.mode", "disabled"),
    (CLUSTER, "spec.headGroupSpec.rayStartParams.num-cpus", "4"),
    (CLUSTER, HEAD + "containers.0.image", "registry.example.com/rung:0.1.0-ray2.59.0-gpu"),
    (CLUSTER, HEAD + "containers.0.volumeMounts.0.mountPath", "/data"),
    (CLUSTER, HEAD + "volumes.0.persistentVolumeClaim.claimName", "datas"),
    (CLUSTER, HEAD + "containers.0.envFrom.0.configMapRef.name", "env"),
    (CLUSTER, HEAD + "containers.0.imagePullPolice", "Always"),
    (CLUSTER, WORKER + "containers.0.volumeMounts.1.readOnly", True),
    (CLUSTER, WORKER + "containers.0.resources.limits", {"memory": "256Gi"}),
    (CLUSTER, WORKER + "tolerations.0.operater", "Exists"),
    (CLUSTER, WORKER + "volumes.3.name", "dshm"),
    (CLUSTER, "spec.workerGroupSpecs.0.minReplicas", 3),
    (JOB, JOB_WORKER + "replicas", 5),
    (JOB, JOB_WORKER + "template.spec.containers.0.resources.requests.memory", "512Gi"),
    (JOB, "spec.submissionMode", "HttpMode"),
    (JOB, "spec.shutdownAfterJobFinishes", False),
    (JOB, "spec.rayClusterSpec.authOptions", GONE),
    (("LocalQueue", "rung"), "spec.clusterQueue", "gpus"),
    (("PodMonitor", "ray"), "spec.selector.matchLabels", {"app": "ray"}),
]

CRD_MISTAKES: list[tuple[tuple[str, str], str, Any]] = [
    (CLUSTER, "spec.enableInTreeAutoscaler", True),
    (CLUSTER, "spec.authOptions.mode", "tokens"),
    (CLUSTER, "spec.workerGroupSpecs.0.maxReplica", 2),
    (CLUSTER, "spec.workerGroupSpecs.0.replicas", "2"),
    (JOB, "spec.backoffLimits", 3),
    (JOB, "spec.ttlSecondsAfterFinished", "600"),
    (("ClusterQueue", "rung"), "spec.resourceGroup", []),
    (("PodMonitor", "ray"), "spec.podMetricsEndpoints.0.ports", "metrics"),
    (("PrometheusRule", "rung"), "spec.groups.0.rules.0.expression", "up"),
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
