"""Search for the best fine-tuning recipe: many runs that differ in learning rate, freeze depth or any other key.

python jobs/sweep.py --config jobs/configs/sweep_lr_freeze.yaml --model.init runs/pretrain-gga

The untouched model and the paper's recipe are always among the trials. The same command again goes on with a sweep that
was interrupted or killed, and a larger sweep.trials adds trials to one that is complete. The best model and a report
are in the sweep's folder.
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.tree import SweepConfig


def main(config: SweepConfig) -> Path:
    """Search; the sweep's figures are in its folder."""
    with loading():
        from rung.orchestration.ray_tune import run_sweep

    return run_sweep(config)


if __name__ == "__main__":
    sys.exit(run_job(SweepConfig, main))
