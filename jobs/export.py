"""Write a run's model as one file that plain chgnet and its ASE calculator load.

python jobs/export.py --config jobs/configs/export.yaml --run runs/finetune-r2scan
python jobs/export.py --config jobs/configs/export.yaml --registry.model chgnet-r2scan --registry.alias champion
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.tree import ExportConfig


def main(config: ExportConfig) -> Path:
    """Export, and publish where asked to; the model's origin is written beside it."""
    with loading():
        from rung.orchestration.registry import export_and_register

    return Path(export_and_register(config).model).with_name("summary.json")


if __name__ == "__main__":
    sys.exit(run_job(ExportConfig, main))
