"""What a run does, for Ray's Prometheus endpoint: rank 0 sets gauges, and the agent of its node exports them.

Ray puts `ray_` before each name; the dashboard and the alerts in k8s/components/monitoring use them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ray.util.metrics import Gauge

from rung.training.sinks import RunDescription

GAUGES: Final = {
    "time/structures_per_second": ("rung_structures_per_second", "structures trained on per second, all ranks"),
    "time/data_wait": ("rung_data_wait", "share of the time spent waiting for batches"),
    "time/imbalance": ("rung_imbalance", "predicted cost of the slowest rank over the mean"),
    "train/loss": ("rung_train_loss", "training loss"),
    "validation/loss": ("rung_validation_loss", "validation loss"),
    "validation/energy_mae": ("rung_validation_energy_mae", "validation error of the energy, eV/atom"),
    "validation/force_mae": ("rung_validation_force_mae", "validation error of the forces, eV/angstrom"),
}
"""A run's metric: the name of its gauge, and its meaning in ASCII, as Ray asks for. Each has the tag `run`."""

STEP_GAUGES: Final = {
    "rung_step": "global step",
    "rung_total_steps": "global steps of the whole run",
}


class RayMetricsSink:
    """Sets the gauges; needs a process that is connected to Ray."""

    def start(self, description: RunDescription) -> None:
        """Make the gauges and say how long the run is."""
        tags = {"run": description.config.run.name}
        self._gauges = {name: _gauge(*about, tags) for name, about in GAUGES.items()}
        self._steps = {name: _gauge(name, meaning, tags) for name, meaning in STEP_GAUGES.items()}
        self._steps["rung_total_steps"].set(description.total_steps)
        self._steps["rung_step"].set(description.first_step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Set what these metrics say."""
        for name in self._gauges.keys() & metrics.keys():
            self._gauges[name].set(metrics[name])
        self._steps["rung_step"].set(step)

    def finish(self, artifacts: Sequence[Path]) -> None:
        """Ray forgets the gauges with the process."""

    def abort(self) -> None:
        """Ray forgets the gauges with the process."""


def _gauge(name: str, meaning: str, tags: Mapping[str, str]) -> Gauge:
    gauge = Gauge(name, meaning, tag_keys=tuple(tags))
    gauge.set_default_tags(dict(tags))
    return gauge
