"""The report of an evaluation, added to the MLflow run of the model that it judges."""

import logging
from pathlib import Path

import yaml
from mlflow.exceptions import MlflowException

from rung.config.secrets import redacted
from rung.config.sections import TrackingConfig
from rung.orchestration.mlflow_run import RUN_ID_NAME, client_of, is_alive
from rung.orchestration.mlflow_sink import resolve_uri
from rung.training.run import CONFIG_NAME

logger = logging.getLogger(__name__)


def log_evaluation(model: str, output: Path) -> bool:
    """Add an evaluation's folder to the artifacts of the run that it judges.

    An MLflow that does not answer is a warning: the evaluation is complete, and the same command adds it later.

    Args:
        model: what was evaluated: a run's folder, or a model that is none, for which there is nothing to add to.
        output: folder of the evaluation, whose name is that of the artifact folder.

    Returns:
        Whether it was added.

    Raises:
        ValueError: MLFLOW_TRACKING_URI names no place that MLflow writes to.
    """
    run = Path(model).expanduser().absolute()
    known = run / RUN_ID_NAME
    if not known.is_file():
        return False
    tracking = TrackingConfig.model_validate(yaml.safe_load((run / CONFIG_NAME).read_text())["tracking"])
    uri = resolve_uri(tracking.uri, str(run.parent))
    try:
        client, run_id = client_of(uri), known.read_text()
        if not is_alive(client, run_id):
            return False
        client.log_artifacts(run_id, str(output), output.absolute().name)
    except MlflowException as error:
        cause = redacted(str(error)).partition("\n")[0]
        logger.warning("MLflow at %s does not take the report (%s): the same command adds it", redacted(uri), cause)
        return False
    logger.info("MLflow: the report is in the artifacts of run %s", run_id)
    return True
