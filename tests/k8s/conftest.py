"""The rendered overlays, and where the CRDs are."""

import os
from pathlib import Path

import pytest

from tests.k8s.manifests import K8S, ROOT, Object, render


@pytest.fixture(scope="session")
def overlays() -> dict[str, list[Object]]:
    """What is in the namespace once an overlay and all of its jobs are applied."""
    folders = [K8S / "overlays" / name for name in ("local", "single-gpu", "cloud")]
    return {folder.name: render(folder) + render(folder / "jobs") for folder in folders}


@pytest.fixture(scope="session")
def crds() -> Path:
    """Folder of the CRDs of KubeRay, Kueue and Prometheus: RUNG_K8S_CRDS, or shared/k8s-crds beside the repository."""
    folder = Path(os.environ.get("RUNG_K8S_CRDS") or ROOT.parent / "shared" / "k8s-crds")
    if not folder.is_dir():
        pytest.skip(f"no CRDs at {folder}: set RUNG_K8S_CRDS to check Ray, Kueue and Prometheus resources too")
    return folder
