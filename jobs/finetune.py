"""Carry a pretrained potential over to data of a higher functional.

python jobs/finetune.py --config jobs/configs/finetune_r2scan.yaml --model.init runs/pretrain-gga

It differs from pretrain.py in its config alone: it needs weights to start from (model.init), and reference.mode says
what becomes of the elemental reference energies. The same command again resumes the run, or returns at once where it is
complete.
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.tree import FinetuneConfig


def main(config: FinetuneConfig) -> Path:
    """Fine-tune; the run's figures are in its folder."""
    with loading():
        from rung.orchestration.launch import launch

    return Path(launch(config).run) / "summary.json"


if __name__ == "__main__":
    sys.exit(run_job(FinetuneConfig, main))
