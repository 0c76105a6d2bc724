"""What becomes of the errors of tasks; tests/integration/test_ray_prepare.py runs tasks."""

import pytest
import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from data_prep.output import UnfinishedError
from rung.orchestration.ray_tasks import TaskLostError, result_of


def failing(monkeypatch, error):
    def get(_):
        raise error

    monkeypatch.setattr(ray, "get", get)


def test_a_task_that_is_lost_for_good_comes_with_advice(monkeypatch):
    failing(monkeypatch, WorkerCrashedError())
    with pytest.raises(
        TaskLostError, match=r"^Ray lost a task for good: .*\. Lower at_a_time; the same command goes on"
    ):
        result_of("task", "Lower at_a_time")
    assert issubclass(TaskLostError, UnfinishedError)


def test_what_the_work_raises_is_raised_here(monkeypatch):
    failing(monkeypatch, RayTaskError("work", "traceback", KeyError("H")))
    with pytest.raises(KeyError, match="H"):
        result_of("task", "")
