"""Turn a raw data set into shards that training reads.

python jobs/prepare_data.py --config jobs/configs/prepare_mptrj.yaml --source.path MPtrj_2022.9_full.json
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.tree import PrepareConfig


def main(config: PrepareConfig) -> Path:
    """Prepare the data; its figures are in the output folder."""
    from rung.orchestration.prepare import run_preparation

    return run_preparation(config).output / "summary.json"


if __name__ == "__main__":
    sys.exit(run_job(PrepareConfig, main))
