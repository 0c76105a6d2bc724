"""Passwords and keys do not get into what is written down."""

import logging

import pytest

from rung.config.command import run_job
from rung.config.load import ConfigError
from rung.config.secrets import RedactingFormatter, redacted, redacted_values
from rung.config.tree import TrainConfig


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://rung:hunter2@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("no answer from https://token@host/x, sorry", "no answer from https://***@host/x, sorry"),
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("a mail to me@host and http://host/a@b", "a mail to me@host and http://host/a@b"),
    ],
)
def test_user_and_password_of_an_address_are_masked(text, shown):
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
)
def test_values_of_secret_variables_are_masked(name, monkeypatch):
    monkeypatch.setenv(name, "hunter2-hunter2")
    assert redacted("401 for hunter2-hunter2") == "401 for ***"
    assert redacted_values({"a": ["x hunter2-hunter2", 3], "b": None}) == {"a": ["x ***", 3], "b": None}


def test_log_lines_and_their_tracebacks_are_masked():
    formatter = RedactingFormatter("%(message)s")
    error = RuntimeError("http://me:hunter2@host is gone")
    information = (type(error), error, None)
    record = logging.LogRecord("rung", logging.ERROR, "", 0, "%s", ("http://me:hunter2@host",), information)
    assert "hunter2" not in formatter.format(record)


def test_the_command_line_shows_no_password(capsys):
    def main(config):
        raise ConfigError(f"cannot reach {config.tracking.uri}")

    arguments = ["--data.path", "x", "--tracking.uri", "postgresql://rung:hunter2@db/mlflow"]
    assert run_job(TrainConfig, main, arguments) == 2
    assert run_job(TrainConfig, main, [*arguments, "--dry-run"]) == 0
    assert run_job(TrainConfig, main, [*arguments, "--training.epochs", "postgresql://rung:hunter2@db"]) == 2
    seen = capsys.readouterr()
    assert "hunter2" not in seen.out + seen.err
    assert "postgresql://***@db/mlflow" in seen.out
