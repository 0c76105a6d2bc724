"""Write a run's model as one file that plain chgnet and its ASE calculator load.

python jobs/export.py --config jobs/configs/export.yaml --run runs/finetune-r2scan
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.tree import ExportConfig
from rung.evaluation.export import export_model


def main(config: ExportConfig) -> Path:
    """Export; the model's origin is written beside it."""
    return Path(export_model(config).model).with_name("summary.json")


if __name__ == "__main__":
    sys.exit(run_job(ExportConfig, main))
