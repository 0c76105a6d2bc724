"""Measure the errors of a model on prepared data, and report where they come from.

python jobs/evaluate.py --config jobs/configs/evaluate.yaml --model runs/finetune-r2scan --baseline r2scan
"""

import sys
from pathlib import Path

from rung.config.command import run_job
from rung.config.progress import loading
from rung.config.tree import EvaluateConfig


def main(config: EvaluateConfig) -> Path:
    """Evaluate; the errors and report.html are in the output folder, and with the run that the model comes from."""
    with loading():
        from rung.evaluation.evaluate import evaluate_model
        from rung.orchestration.evaluation_log import log_evaluation
        from rung.orchestration.paths import require_writable

    require_writable("output", config.output)
    output = Path(evaluate_model(config).output)
    if config.track:
        log_evaluation(config.model, output)
    return output / "summary.json"


if __name__ == "__main__":
    sys.exit(run_job(EvaluateConfig, main))
