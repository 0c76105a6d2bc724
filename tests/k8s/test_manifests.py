"""Every overlay and component renders and is valid; planted mistakes are not."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from kubernetes_validate.utils import all_versions

from tests.k8s import lint
from tests.k8s.manifests import K8S, KUBECTL, Object, render, schema_faults
from tests.k8s.mistakes import CRD_MISTAKES, MISTAKES, plant
from tests.k8s.references import reference_faults

COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
VERSIONS = [v for v in dict.fromkeys(all_versions()) if tuple(map(int, v.split(".")[:2])) >= (1, 31)]


def faults(items: list[Object], version: str, crds: Path | None = None) -> list[str]:
    return [fault for item in items for fault in schema_faults(item, version, crds)] + list(reference_faults(items))


@pytest.mark.parametrize("version", VERSIONS)
def test_overlays_are_valid(overlays, version):
    for items in overlays.values():
        assert faults(items, version) == []


def test_overlays_satisfy_the_crds(overlays, crds):
    for items in overlays.values():
        assert faults(items, VERSIONS[-1], crds) == []


@pytest.fixture
def with_component(tmp_path_factory):
    """Renders the base and the jobs with one component."""

    def rendered(component: str) -> list[Object]:
        folder = tmp_path_factory.mktemp("overlay")
        up = os.path.relpath(K8S, folder.resolve())
        parts = f"resources: [{up}/base, {up}/jobs]\ncomponents: [{up}/components/{component}]\n"
        (folder / "kustomization.yaml").write_text(parts)
        return render(folder)

    return rendered


@pytest.mark.parametrize("component", [*COMPONENTS, "kueue/queued"])
def test_components_are_valid(with_component, component):
    assert faults(with_component(component), VERSIONS[-1]) == []


@pytest.mark.parametrize("component", [*COMPONENTS, "kueue/queued"])
def test_components_satisfy_the_crds(with_component, crds, component):
    assert faults(with_component(component), VERSIONS[-1], crds) == []


def test_there_are_mistakes_enough():
    assert len(MISTAKES) >= 45


@pytest.mark.parametrize(
    ("where", "path", "value", "message"), MISTAKES, ids=[f"{where[1][:20]}-{path}" for where, path, *_ in MISTAKES]
)
def test_mistakes_are_refused(overlays, where, path, value, message):
    sound = overlays["cloud"]
    planted = plant(sound, where, path, value)
    changed = [item for item in planted if item not in sound]
    found = [fault for item in changed for fault in schema_faults(item, VERSIONS[-1], None)]
    found += reference_faults(planted)
    assert any(message in fault for fault in found), found


@pytest.mark.parametrize(
    ("where", "path", "value", "message"), CRD_MISTAKES, ids=[f"{where[1]}-{path}" for where, path, *_ in CRD_MISTAKES]
)
def test_mistakes_are_refused_by_crds(overlays, crds, where, path, value, message):
    planted = plant(overlays["cloud"], where, path, value)
    mistaken = next(item for item in planted if (item["kind"], item["metadata"]["name"]) == where)
    found = list(schema_faults(mistaken, VERSIONS[-1], crds))
    assert any(message in fault for fault in found), found


def test_linters_have_nothing_to_mend():
    if not lint.CHECKOV.exists():
        pytest.skip("checkov is not installed: make k8s-lint")
    assert lint.main() == 0


@pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="needs an API server: set KUBECONFIG")
@pytest.mark.parametrize("overlay", ["local", "single-gpu", "cloud"])
def test_a_server_accepts(overlays, overlay):
    """Server-side dry-run: nothing is stored. Objects go to a namespace that exists, RUNG_K8S_NAMESPACE or default."""
    namespace = os.environ.get("RUNG_K8S_NAMESPACE", "default")
    for item in (item for item in overlays[overlay] if item["kind"] != "Namespace"):
        moved = {"metadata": item["metadata"] | {"namespace": namespace}} if "namespace" in item["metadata"] else {}
        done = subprocess.run(
            [KUBECTL, "apply", "--dry-run=server", "--validate=strict", "-f", "-"],
            input=yaml.safe_dump(item | moved),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{item['kind']}/{item['metadata']['name']}: {done.stderr}"
