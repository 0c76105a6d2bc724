"""A run's model as one file that plain chgnet and its ASE calculator load, without Rung."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rung.config.tree import ExportConfig
from rung.evaluation.physics import require_physics
from rung.model.weights import save_model
from rung.training.replay import replay_model_of
from rung.training.run import RunFolder, model_of


@dataclass(frozen=True)
class ExportSummary:
    """What was exported."""

    model: str
    """The model file."""
    run: str
    step: int
    """Global step of the checkpoint."""
    manifest_hash: str
    """sha256 of the manifest of the data set that it was trained on."""
    physics: list[dict[str, Any]]
    """Every law of the physics gate: deviation found, limit and unit."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def export_model(config: ExportConfig) -> ExportSummary:
    """Write the model file, and `summary.json` beside it with where it comes from.

    Raises:
        ValueError: the folder holds no run, its checkpoint cannot be read, it has no second functional though
            `functional` is replay, or the output lies in a run's folder.
        PhysicsError: the model breaks a law that every potential obeys.
    """
    folder = Path(config.output).absolute().parent
    if (folder / "checkpoints").exists():
        raise ValueError(f"{folder} is a run's folder with a summary.json of its own: set output to another folder")
    state = RunFolder(Path(config.run).absolute()).load_state(config.checkpoint)
    model = model_of(state)
    if config.functional == "replay":
        model = replay_model_of(state, model)
    checks = require_physics(model, "export")
    summary = ExportSummary(
        model=config.output,
        run=config.run,
        step=state["progress"]["step"],
        manifest_hash=state["manifest_hash"],
        physics=[check.to_json() for check in checks],
    )
    card = {
        "run": summary.to_dict(),
        "config": state["config"],
        "reference": state["progress"]["reference"],
        "versions": state["versions"],
    }
    path = save_model(model, Path(config.output), card)
    path.with_name("summary.json").write_text(json.dumps(summary.to_dict(), indent=1))
    return summary
