import io
import json
import logging
import sys
import time
from pathlib import Path

import pytest

from rung.config import progress
from rung.config.tree import TrainConfig
from rung.orchestration.watch import DescriptionSink, LineFollower, run_watched
from rung.training.meanwhile import MEANWHILE_NAME
from rung.training.run import TrainSummary
from rung.training.sinks import JsonLinesSink, ProgressSink, RunDescription


class Recorder:
    """A sink that remembers what it was told."""

    def __init__(self):
        self.description = None
        self.metrics = []
        self.end = None

    def start(self, description):
        self.description = description

    def log(self, metrics, step):
        self.metrics.append((step, dict(metrics)))

    def finish(self, artifacts):
        self.end = [path.name for path in artifacts]

    def abort(self):
        self.end = "aborted"

    @property
    def steps(self):
        return [step for step, _ in self.metrics]


@pytest.fixture
def config(tmp_path):
    return TrainConfig.model_validate({"data": {"path": "/d"}, "run": {"storage": str(tmp_path), "name": "r"}})


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Evaluation:
    """A loop that evaluates before its first step."""

    def __init__(self, config, seen):
        self.folder, self.seen = Path(config.run.storage) / config.run.name, seen

    def __call__(self):
        path = self.folder / MEANWHILE_NAME
        assert not path.exists()
        for done in (20, 30):
            text = json.dumps({"what": "evaluating", "done": done, "total": 90, "unit": "structure"})
            path.with_suffix(".tmp").write_text(text)
            path.with_suffix(".tmp").replace(path)
            deadline = time.monotonic() + 20
            while not self.seen(done) and time.monotonic() < deadline:
                time.sleep(0.02)
        path.unlink()
        return summary(self.folder)


class Loop:
    """What the training loop does to the run's folder."""

    def __init__(self, config, steps, first_step=0, completed=True):
        self.config, self.steps, self.first_step, self.completed = config, steps, first_step, completed

    def __call__(self):
        folder = Path(self.config.run.storage) / self.config.run.name
        folder.mkdir(exist_ok=True)
        sinks = [JsonLinesSink(), DescriptionSink()]
        description = RunDescription(
            folder=folder,
            config=self.config,
            manifest_hash="abc",
            manifest={"records": 3},
            reference={"mode": "refit"},
            num_parameters=7,
            versions={"torch": "2"},
            first_step=self.first_step,
            total_steps=10,
        )
        for sink in sinks:
            sink.start(description)
        for step in self.steps:
            for sink in sinks:
                sink.log({"train/energy_mae": 1 / step}, step)
        model = folder / "model.pth.tar"
        model.touch()
        for sink in sinks:
            sink.finish([model]) if self.completed else sink.abort()
        return summary(folder, self.completed)


def summary(folder, completed=True):
    return TrainSummary(
        run=str(folder),
        model="",
        steps=0,
        epochs=0,
        num_parameters=0,
        num_trainable=0,
        best_step=0,
        completed=completed,
    )


def test_sinks_see_description_metrics_and_artifacts(config):
    sink = Recorder()
    run_watched(Loop(config, steps=range(1, 6)), config, [sink])
    assert sink.description.num_parameters == 7
    assert sink.description.config is config
    assert sink.description.total_steps == 10
    assert sink.metrics == [(step, {"train/energy_mae": 1 / step}) for step in range(1, 6)]
    assert sink.end == ["model.pth.tar"]


def test_metrics_arrive_while_the_run_goes_on(config):
    sink = Recorder()
    loop = Loop(config, steps=[1, 2])

    def run():
        result = loop()
        deadline = time.monotonic() + 10
        while len(sink.metrics) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sink.steps == [1, 2]
        assert sink.end is None
        return result

    run_watched(run, config, [sink])
    assert sink.steps == [1, 2]


def test_a_failed_run_aborts_its_sinks_after_its_last_metric(config):
    sink = Recorder()

    def run():
        Loop(config, steps=[1, 2])()
        raise RuntimeError("rank 1 was lost")

    with pytest.raises(RuntimeError, match="rank 1"):
        run_watched(run, config, [sink])
    assert sink.steps == [1, 2]
    assert sink.end == "aborted"


def test_a_stopped_run_aborts_its_sinks(config):
    sink = Recorder()
    run_watched(Loop(config, steps=[1], completed=False), config, [sink])
    assert sink.end == "aborted"


def test_a_run_refused_before_it_starts_leaves_sinks_alone(config):
    sink = Recorder()

    def run():
        raise ValueError("no training records")

    with pytest.raises(ValueError, match="no training records"):
        run_watched(run, config, [sink])
    assert sink.description is None
    assert sink.end is None


def test_a_resumed_run_is_introduced_by_its_new_description(config):
    run_watched(Loop(config, steps=[1, 2, 3], completed=False), config, [])
    sink = Recorder()
    run_watched(Loop(config, steps=[3, 4], first_step=2), config, [sink])
    assert sink.description.first_step == 2
    assert sink.steps == [1, 2, 3, 4]  # the whole history, for a tracker that missed some of it


def test_a_run_that_was_complete_before_is_told_once_more(config):
    run_watched(Loop(config, steps=[1, 2]), config, [])
    sink = Recorder()
    run_watched(lambda: summary("r"), config, [sink])
    assert sink.steps == [1, 2]
    assert sink.end == ["model.pth.tar"]


def test_a_run_that_was_complete_before_shows_no_progress(config):
    run_watched(Loop(config, [1, 2]), config, [])
    stream = io.StringIO()
    done = summary(Path(config.run.storage) / config.run.name)
    run_watched(lambda: done, config, [ProgressSink(stream), recorder := Recorder()])
    assert stream.getvalue() == ""
    assert recorder.steps == [1, 2]


def test_a_folder_that_cannot_be_seen_is_said(config, caplog):
    sink = Recorder()
    run_watched(lambda: summary("elsewhere"), config, [sink])
    assert sink.end is None
    assert "cannot be seen from here" in caplog.text


def test_the_follower_waits_for_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    follower = LineFollower(path)
    assert follower.new_lines() == []
    path.write_text('{"step": 1}\n{"st')
    assert follower.new_lines() == ['{"step": 1}']
    assert follower.new_lines() == []
    with path.open("a") as file:
        file.write('ep": 2}\n')
    assert follower.new_lines() == ['{"step": 2}']


def test_the_follower_starts_over_in_a_new_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\ntwo\n")
    follower = LineFollower(path)
    assert follower.new_lines() == ["one", "two"]
    replacement = tmp_path / "new"
    replacement.write_text("one\nother\nthree\n")
    replacement.replace(path)
    assert follower.new_lines() == ["one", "other", "three"]


def test_the_follower_starts_over_in_a_shorter_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\ntwo\n")
    follower = LineFollower(path)
    follower.new_lines()
    path.write_text("one\n")
    assert follower.new_lines() == ["one"]


def test_the_description_is_json(config):
    Loop(config, steps=[1])()
    content = json.loads((Path(config.run.storage) / "r" / "description.json").read_text())
    assert content["manifest_hash"] == "abc"
    assert content["artifacts"][0].endswith("model.pth.tar")


def test_what_a_run_does_besides_its_steps_is_a_bar_on_a_terminal(config, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    folder = Path(config.run.storage) / config.run.name
    folder.mkdir()
    (folder / MEANWHILE_NAME).write_text("left by a start that was killed")
    run_watched(Evaluation(config, lambda done: f"{done}/90 [" in sys.stderr.getvalue()), config, [Recorder()])
    shown = sys.stderr.getvalue()
    assert "evaluating:  22%|" in shown
    assert "30/90 [" in shown
    assert shown.rsplit("\r", 2)[1].strip() == ""


def test_a_bar_shows_that_ranks_are_awaited(config, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "_SHOWN_AFTER", 0.0)
    loop = Loop(config, [1])

    def slow_start():
        seen(lambda: "starting the ranks:   7%|" in sys.stderr.getvalue())
        done = loop()
        seen(lambda: sys.stderr.getvalue().endswith("\r"))
        return done

    run_watched(slow_start, config, [Recorder()])


def seen(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_elsewhere_it_is_one_line(config, caplog):
    caplog.set_level(logging.INFO)
    (Path(config.run.storage) / config.run.name).mkdir()
    run_watched(Evaluation(config, lambda done: done == 30 or "so far" in caplog.text), config, [Recorder()])
    assert caplog.messages.count("evaluating: 20 of 90 structures so far") == 1
    assert "30 of 90" not in caplog.text
