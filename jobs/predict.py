"""Predict energies, forces, stresses and magnetic moments of many structures with a trained model.

python jobs/predict.py --config jobs/configs/predict.yaml --model models/finetune-r2scan/chgnet.pth.tar
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.inference import PredictConfig
from rung.config.progress import loading


def main(config: PredictConfig) -> Path:
    """Predict; the same command goes on after it was killed."""
    with loading():
        from rung.orchestration.predict import run_prediction

    return Path(run_prediction(config).predictions).with_name("summary.json")


if __name__ == "__main__":
    sys.exit(run_job(PredictConfig, main))
