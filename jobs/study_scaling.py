"""Measure how many data of the higher functional are needed, with pretraining and without.

python jobs/study_scaling.py --config jobs/configs/study_scaling.yaml

Nested subsets of the training materials, each trained with every method and seed; power laws, zero-data point and
data-efficiency ratio. The same command again goes on with the runs that are not finished.
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.studies import ScalingStudyConfig


def main(config: ScalingStudyConfig) -> Path:
    """Train all, fit; figures, report and runs are in the output folder."""
    with loading():
        from rung.studies.scaling import study_scaling

    return study_scaling(config)


if __name__ == "__main__":
    sys.exit(run_job(ScalingStudyConfig, main))
