"""The gauges that a run sets, and those that dashboard and alerts ask for."""

import re
from pathlib import Path

from rung.orchestration.ray_metrics import GAUGES, STEP_GAUGES

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "k8s" / "components" / "monitoring"


def test_dashboard_alerts_and_documentation_use_names_that_are_exported():
    exported = {f"ray_{name}" for name, _ in GAUGES.values()} | {f"ray_{name}" for name in STEP_GAUGES}
    for path in (MONITORING / "rung.json", MONITORING / "monitoring.yaml", ROOT / "docs" / "tracking.md"):
        used = set(re.findall(r"ray_rung_\w+", path.read_text()))
        assert used, path
        assert used <= exported, path
