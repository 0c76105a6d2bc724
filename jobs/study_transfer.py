"""Compare the treatments of a pretrained model at one budget.

python jobs/study_transfer.py --config jobs/configs/study_transfer.yaml

Every method (a reference mode, with further keys of a training run where given) is trained with every seed on the same
materials. The same command again goes on with the runs that are not finished.
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.studies import TransferStudyConfig


def main(config: TransferStudyConfig) -> Path:
    """Train all, compare; figures, report and runs are in the output folder."""
    with loading():
        from rung.studies.transfer import study_transfer

    return study_transfer(config)


if __name__ == "__main__":
    sys.exit(run_job(TransferStudyConfig, main))
