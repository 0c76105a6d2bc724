"""One door to a preparation, whoever does the work: processes of this machine, or tasks of a Ray cluster."""

from data_prep.convert import prepare
from data_prep.summary import PrepareSummary
from rung.config.tree import PrepareConfig


def run_preparation(config: PrepareConfig) -> PrepareSummary:
    """Prepare the data set of the config, or go on with it.

    Raises:
        ValueError: config, input or cluster are at fault; the message says what to change.
        UnfinishedError: a worker or a task was lost; the same call goes on behind what is finished.
    """
    if config.parallel.kind == "local":
        return prepare(config)
    from rung.orchestration.ray_prep import prepare_on_ray  # noqa: PLC0415 (who stays on this machine needs no Ray)

    return prepare_on_ray(config)
