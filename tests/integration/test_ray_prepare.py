"""Preparing data with Ray tasks: the same bytes as without Ray, and errors that say what to do."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from data_prep.convert import prepare
from rung.config.tree import PrepareConfig

pytestmark = pytest.mark.ray


def config_of(folder: Path, **parallel) -> PrepareConfig:
    source = {"kind": "surrogate", "functional": "GGA", "num_structures": 200}
    shards = {"max_mb": 0.03}
    return PrepareConfig.model_validate(
        {"output": str(folder), "source": source, "shards": shards, "parallel": parallel}
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "summary.json"}


def test_same_bytes_with_and_without_ray(ray_cluster, tmp_path):
    from rung.orchestration.prepare import run_preparation

    here = prepare(config_of(tmp_path / "here", workers=1))
    there = run_preparation(config_of(tmp_path / "there", kind="ray", workers=2))
    assert there.records_kept == here.records_kept > 150
    assert here.shards > 3
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_no_more_chunks_are_read_than_are_worked_on(ray_cluster):
    from rung.orchestration.ray_tasks import map_over_tasks

    read = []

    def chunks():
        for number in range(20):
            read.append(number)
            yield number

    results = map_over_tasks(partial(pow, 2), chunks(), at_a_time=2)
    assert next(results) == 1
    assert len(read) == 4
    assert list(results) == [2**number for number in range(1, 20)]


def test_what_the_work_raises_is_raised_here(ray_cluster):
    from rung.orchestration.ray_tasks import map_over_tasks

    with pytest.raises(ZeroDivisionError):
        list(map_over_tasks(partial(divmod, 1), [1, 0], at_a_time=2))


def die_once(mark: Path, number: int) -> int:
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_no_loss(ray_cluster, tmp_path):
    from rung.orchestration.ray_tasks import map_over_tasks

    work = partial(die_once, tmp_path / "mark")
    assert list(map_over_tasks(work, range(4), at_a_time=2)) == [0, 1, 2, 3]
    assert (tmp_path / "mark").exists()
