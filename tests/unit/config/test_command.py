"""The command line: options, help, dry run, exit codes."""

import re
import sys
from pathlib import Path

import pytest

from rung.config import command
from rung.config.command import help_text, parse_arguments, parse_overrides, run_job
from rung.config.describe import groups
from rung.config.load import ConfigError, load_config
from rung.config.tree import EvaluateConfig, ExportConfig, PrepareConfig, TrainConfig

DATA = ["--data.path", "shards"]


class OwnError(RuntimeError):
    """Stands for an error class of ours."""


OwnError.__module__ = "rung.training.step"


def job(config: TrainConfig) -> Path:
    return Path(config.run.storage) / "summary.json"


def failing(error: BaseException, module: str = "rung.data.dataset"):
    """A job that fails inside a module of the given name."""
    scope = {"__name__": module, "error": error}
    exec("def fail(config):\n    raise error", scope)
    return scope["fail"]


def test_arguments():
    arguments = parse_arguments(["--config", "a.yaml", "--a.b", "-1e-3", "--c=--x", "--dry-run", "--a.b=2", "--d="])
    assert arguments.config == Path("a.yaml")
    assert arguments.switches == {"dry-run"}
    assert arguments.overrides == {"a.b": "2", "c": "--x", "d": ""}


@pytest.mark.parametrize("argv", [["stray"], ["--a.b"], ["--a.b", "--dry-run"], ["--"], ["--config"]])
def test_words_that_are_no_options(argv):
    with pytest.raises(ConfigError, match="--help"):
        parse_arguments(argv)


def test_text_becomes_what_its_key_takes():
    given = {"run.name": "123", "data.path": "null", "optimizer.clip_norm": "null", "optimizer.learning_rate": "1e-4"}
    given |= {"tracking.kind": "off", "tracking.uri": "5", "training.deterministic": "true", "model.init": "0.3.0"}
    parsed = parse_overrides(TrainConfig, given | {"training.epochs": "many", "no.key": "1"})
    assert parsed == given | {
        "optimizer.clip_norm": None,
        "optimizer.learning_rate": 1e-4,
        "training.deterministic": True,
        "training.epochs": "many",
        "no.key": "1",
    }


def test_dry_run_prints_the_resolved_config(tmp_path, capsys):
    assert run_job(TrainConfig, failing(OwnError("ran")), [*DATA, "--run.seed", "7", "--dry-run"]) == 0
    path = tmp_path / "resolved.yaml"
    path.write_text(capsys.readouterr().out)
    config = load_config(TrainConfig, path)
    assert (config.run.seed, config.data.path) == (7, "shards")


def test_prints_the_path_of_the_summary_alone(capsys):
    assert run_job(TrainConfig, job, [*DATA, "--run.storage=out"]) == 0
    assert capsys.readouterr().out == "out/summary.json\n"


def test_only_rank_0_prints(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run_job(TrainConfig, job, DATA) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("tree", [PrepareConfig, TrainConfig, EvaluateConfig, ExportConfig])
def test_help_has_every_key_in_lines_of_100_characters(tree):
    text = help_text(tree, "What it does.", "python jobs/x.py")
    assert max(len(line) for line in text.splitlines()) <= 100
    flowing = re.sub(r"\s+", " ", text)
    for group in groups(tree):
        for setting in group.settings:
            assert f"--{setting.key} {setting.meaning} [{setting.allowed}; " in flowing


def test_help_shows_unit_bounds_choices_and_default(capsys):
    assert run_job(TrainConfig, job, ["--help"]) == 0
    flowing = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "bonds [a number > 0 and <= 20 (Å); default 6.0]" in flowing
    assert "[one of huber, mse, mae; default huber]" in flowing
    assert "--data.path folder that prepare_data wrote, or URL of its copy in object storage [text, not" in flowing
    assert "The command line: options, help, dry run, exit codes." in flowing  # the docstring of the job's module


def test_bad_config_is_one_message(capsys):
    assert run_job(TrainConfig, job, [*DATA, "--training.epoch", "3"]) == 2
    assert capsys.readouterr().err == (
        "error: training.epoch (command line): unknown key; did you mean training.epochs?\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("no records"), 2, "error: no records"),
        (FileNotFoundError(2, "No such file", "x.json"), 2, "x.json"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (OwnError("loss is not finite"), 1, "loss is not finite"),
        (KeyboardInterrupt(), 130, "interrupted: give the same command again, what is finished is kept"),
    ],
)
def test_errors_for_the_user_have_a_message_and_a_code(capsys, monkeypatch, error, code, text):
    monkeypatch.delenv("RUNG_TRACEBACK", raising=False)
    assert run_job(TrainConfig, failing(error), DATA) == code
    assert text in (shown := capsys.readouterr().err)
    assert "Traceback" not in shown
    assert run_job(TrainConfig, failing(error), [*DATA, "--traceback"]) == code
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("RUNG_TRACEBACK", "1")
    assert run_job(TrainConfig, failing(error), DATA) == code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("in a library"), RuntimeError("bug"), KeyError("bug")])
def test_anything_else_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_job(TrainConfig, failing(error, module="numpy.linalg"), DATA)


def test_arguments_of_the_process_are_the_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jobs/x.py", *DATA, "--dry-run"])
    assert run_job(TrainConfig, job) == 0
    assert "path: shards" in capsys.readouterr().out


def test_long_keys_have_a_line_of_their_own():
    lines = command._entry("--launcher.a_very_long_name_indeed", "meaning")
    assert lines == ["  --launcher.a_very_long_name_indeed", " " * 30 + "meaning"]
