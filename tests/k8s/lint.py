"""Checkov and hadolint over k8s: every complaint is mended, or is among the exceptions with its reason.

python -m tests.k8s.lint

Checkov does not look inside Ray's resources, so their pods are handed over as bare Pods. It lives in a virtual
environment of its own (`make k8s-lint`), since it asks for other versions of what Rung needs.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.k8s.manifests import K8S, ROOT, Object, pods, render

CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"
HADOLINT = Path(sys.executable).with_name("hadolint")
DOCKERFILE = K8S / "docker" / "Dockerfile"

EVERYWHERE = ""
EXCEPTIONS: dict[str, dict[str, str]] = {
    "CKV_K8S_8": {"Pod.": "KubeRay gives Ray's pods their probes; ones of our own would replace them"},
    "CKV_K8S_9": {"Pod.": "as CKV_K8S_8"},
    "CKV_K8S_11": {EVERYWHERE: "a CPU limit throttles training and fails the probes of busy Ray pods (kuberay#4133)"},
    "CKV_K8S_15": {EVERYWHERE: "tags name versions and never move; images loaded into kind cannot be pulled"},
    "CKV_K8S_22": {"Pod.": "Ray writes its session into /tmp and unpacks what jobs upload"},
    "CKV_K8S_35": {
        "mlflow": "MLflow reads its database's address from the environment alone",
        "postgres": "the image makes the user mlflow from its environment",
        "redis": "redis-server takes its password on the command line, where only the environment can fill it in",
    },
    "CKV_K8S_38": {"raycluster-rung-ray-head": "the autoscaler beside the head asks Kubernetes for workers"},
    "CKV_K8S_40": {
        "Pod.": "the user 1000 of Rung's image owns its home folder",
        "postgres": "the user 999 of the image owns its folders",
        "redis": "the user 999 of the image owns its folders",
    },
    "CKV_K8S_43": {EVERYWHERE: "digests differ between registries and architectures; k8s/README.md tells how to pin"},
}
"""Check: part of the object's name: why it does not hold here."""


def complaints() -> Iterator[tuple[str, str, str]]:
    """Check, object and what is asked for, of everything that fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for overlay in ("local", "single-gpu", "cloud"):
            items = render(K8S / "overlays" / overlay) + render(K8S / "overlays" / overlay / "jobs")
            (folder / f"{overlay}.yaml").write_text(yaml.safe_dump_all([*items, *bare_pods(items)]))
        items = list(yaml.safe_load_all((K8S / "components" / "gcs-ft" / "redis.yaml").read_text()))
        (folder / "redis.yaml").write_text(yaml.safe_dump_all(items))
        (folder / "Dockerfile").write_text(DOCKERFILE.read_text())
        command = [CHECKOV, "--directory", folder, "--framework", "kubernetes", "dockerfile"]
        command += ["--output", "json", "--quiet", "--compact"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        reports = json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"checkov said no JSON: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    for report in reports if isinstance(reports, list) else [reports]:
        for failed in report["results"]["failed_checks"]:
            yield failed["check_id"], failed["resource"], failed["check_name"]


def bare_pods(items: list[Object]) -> Iterator[Object]:
    for pod in pods(items):
        if "ray.io/node-type" in pod.labels:
            bare = pod.bare()
            bare["metadata"]["namespace"] = "rung"
            yield bare


def main() -> int:
    """Print what is neither mended nor excepted, and exceptions that nothing needs."""
    used: set[tuple[str, str]] = set()
    lines: set[str] = set()
    for check, resource, text in complaints():
        reasons = [part for part in EXCEPTIONS.get(check, {}) if part in resource]
        used |= {(check, part) for part in reasons}
        if not reasons:
            lines.add(f"{check} {resource}: {text}")
    stale = {(check, part) for check, parts in EXCEPTIONS.items() for part in parts} - used
    lines |= {f"{check} {part or 'everywhere'}: nothing needs this exception" for check, part in stale}
    linted = subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    lines |= set(linted.stdout.splitlines())
    print("\n".join(sorted(lines)) or f"nothing to mend; {len(used)} exceptions")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
