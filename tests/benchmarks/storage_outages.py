"""A run through a minute of storage that refuses writes, a minute of a full disk and a minute without MLflow.

python -m tests.benchmarks.storage_outages --json FILE

Needs root, to mount the small file system that is filled.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

from rung.config.tree import TrainConfig
from rung.data.dataset import ShardDataset
from tests.benchmarks.figures import Figures, run
from tests.benchmarks.runs import config_of, surrogate
from tests.integration.faults.outages import MAY_MOUNT, go_through_outages

_SECONDS: Final = 60.0
_STRUCTURES: Final = 60
_BATCH: Final = 2
_STEPS: Final = 4000


def measure() -> Figures:
    """Go through them."""
    with tempfile.TemporaryDirectory(prefix="rung-storage-outages-") as scratch:
        data = surrogate(Path(scratch) / "data", _STRUCTURES)
        steps_per_epoch = -(-len(ShardDataset(data).select("train")) // _BATCH)
        epochs = -(-_STEPS // steps_per_epoch)

        def make_config(name: str, storage: Path, address: str | None) -> TrainConfig:
            tracking = {"kind": "off"} if address is None else {"uri": address}
            training = {"epochs": epochs, "checkpoint_every": 20, "log_every": 5}
            return config_of(data, storage, name, training=training, batch={"structures": _BATCH}, tracking=tracking)

        figures = go_through_outages(make_config, epochs * steps_per_epoch, Path(scratch), _SECONDS)
        return {"seconds_of_each_outage": _SECONDS, "steps": epochs * steps_per_epoch, **figures}


if __name__ == "__main__":
    if MAY_MOUNT:
        run(measure, __doc__)
    else:
        sys.stderr.write("left out: only root may mount the small file system that is filled\n")
