"""Train a potential on abundant data, from random weights or from given ones.

python jobs/pretrain.py --config jobs/configs/pretrain_gga.yaml --launcher.num_workers 8

The same command again resumes the run, or returns at once where it is complete.
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.tree import TrainConfig


def main(config: TrainConfig) -> Path:
    """Train; the run's figures are in its folder."""
    with loading():
        from rung.orchestration.launch import launch

    return Path(launch(config).run) / "summary.json"


if __name__ == "__main__":
    sys.exit(run_job(TrainConfig, main))
