"""Compare two functionals on the structures that two data sets share.

python jobs/study_functionals.py --config jobs/configs/study_functionals.yaml

The shift of the energies, their correlation raw, less isolated atoms and less fitted references, by element; forces,
stress and magnetic moments; the fitted shifts beside the tables of the chgnet package.
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.studies import FunctionalsConfig


def main(config: FunctionalsConfig) -> Path:
    """Compare; figures and report are in the output folder."""
    with loading():
        from rung.studies.functionals import study_functionals

    return study_functionals(config)


if __name__ == "__main__":
    sys.exit(run_job(FunctionalsConfig, main))
