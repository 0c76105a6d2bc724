"""Log lines as text and as JSON."""

import io
import json
import logging
import sys

import pytest

from rung.config import logs
from rung.config.command import run_job
from rung.config.progress import progress_bar
from rung.config.section import Section, setting
from rung.config.sections import RunConfig


@pytest.fixture(autouse=True)
def _leave_no_trace():
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in ("rung", "data_prep")}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_hold_level_logger_message_rank_and_run(monkeypatch, capsys):
    monkeypatch.setenv("RUNG_LOG_FORMAT", "json")
    logs.configure_logging(3, "night-run")
    logging.getLogger("rung.x").warning("step %d\nof many", 7)
    (line,) = lines(capsys)
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "rung.x", "step 7\nof many")
    assert (line["rank"], line["run"]) == (3, "night-run")
    assert line["time"].endswith("+00:00")


def test_json_lines_hold_tracebacks_and_no_secrets(monkeypatch, capsys):
    monkeypatch.setenv("RUNG_LOG_FORMAT", "json")
    monkeypatch.setenv("MY_PASSWORD", "hunter2hunter2")
    logs.configure_logging()
    error = RuntimeError("http://user:pw@host hunter2hunter2")
    logging.getLogger("rung.x").error("at hunter2hunter2", exc_info=error)
    (line,) = lines(capsys)
    assert "RuntimeError" in line["traceback"]
    assert "hunter2" not in json.dumps(line)
    assert "pw@" not in json.dumps(line)


def test_what_other_packages_tell_of_themselves_is_left_out(monkeypatch, capsys):
    monkeypatch.setenv("RUNG_LOG_FORMAT", "json")
    logs.configure_logging()
    other = logging.getLogger("/site-packages/ray/train/context.py")
    monkeypatch.setattr(other, "level", logging.INFO)
    other.info("Reporting training result 3")
    other.warning("a disk is full")
    assert [line["message"] for line in lines(capsys)] == ["a disk is full"]


def test_ranks_above_0_tell_warnings_alone(monkeypatch, capsys):
    monkeypatch.setenv("RUNG_LOG_FORMAT", "json")
    for rank, told in ((0, 1), (1, 0)):
        logs.configure_logging(rank)
        logging.getLogger("rung.x").info("hello")
        assert len(lines(capsys)) == told


def test_a_format_that_there_is_not_is_refused_by_name(monkeypatch, capsys):
    monkeypatch.setenv("RUNG_LOG_FORMAT", "xml")
    with pytest.raises(ValueError, match="RUNG_LOG_FORMAT is 'xml': set it to text or json"):
        logs.configure_logging()


class Tree(Section):
    run: RunConfig = setting(RunConfig(), "run")


def main(config):
    logging.getLogger("rung.x").info("training")
    return config.run.storage


def test_a_job_names_its_run_in_every_line(monkeypatch, capsys):
    monkeypatch.setenv("RUNG_LOG_FORMAT", "json")
    monkeypatch.setattr(sys, "argv", ["job"])
    assert run_job(Tree, main, ["--run.name", "mine"]) == 0
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["run"] == "mine"


def test_a_line_stands_above_the_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.delenv("RUNG_LOG_FORMAT", raising=False)
    logs.configure_logging()
    with progress_bar("evaluating", 9, "structure"):
        logging.getLogger("rung.x").info("hello")
    before, _, after = sys.stderr.getvalue().partition("INFO rung.x: hello\n")
    assert before.split("\r")[-1].strip().count(":") == 2, "the bar was still there: only the time may stand before"
    assert "evaluating:" in after
