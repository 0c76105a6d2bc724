"""What integration tests share: a Ray that is alone on this machine, an MLflow database that is made once."""

import os
import shutil

import pytest

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # or the first ray.init() writes a token into the home folder
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less per fit
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
}
os.environ.update(ENVIRONMENT)  # before any test imports ray
for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory):
    """An MLflow database without runs; making one costs 10 s of migrations."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def storage(tmp_path, mlflow_template):
    """A storage folder with its own MLflow database."""
    folder = tmp_path / "storage"
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """Thirty-two surrogate structures."""
    from data_prep.convert import prepare
    from rung.config.tree import PrepareConfig

    folder = tmp_path_factory.mktemp("data") / "gga"
    source = {"kind": "surrogate", "functional": "GGA", "num_structures": 32}
    split = {"validation": 0.2, "test": 0.2}
    prepare(PrepareConfig.model_validate({"output": str(folder), "source": source, "split": split}))
    return folder


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster in this process; the dashboard stays on, Ray Train's clean-up needs it.

    There is one for all tests, since starting and stopping costs 10 s, and ray.shutdown() is where processes hang.
    """
    import ray

    ray.init(address="local", num_cpus=4, object_store_memory=200 * 2**20, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
