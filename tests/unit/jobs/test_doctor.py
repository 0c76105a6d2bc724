"""The doctor as a user calls it: a line for each check, and an exit code."""

import pytest

from rung.orchestration.checkup import checks
from rung.orchestration.checkup.finding import note, ok, problem
from tests.unit.jobs.test_jobs import start

WELL = {"config": checks.check_config, "disk": lambda subject: ok("room enough")}


@pytest.mark.parametrize(
    ("more", "code", "last"),
    [
        ({}, 0, "no problem found"),
        ({"GPUs": lambda subject: note("hidden", "show them")}, 0, "no problem found, 1 note"),
        ({"GPUs": lambda subject: problem("broken", "mend it")}, 1, "1 of 3 checks found a problem"),
        ({"GPUs": lambda subject: 1 / 0}, 1, "1 of 3 checks found a problem"),
    ],
)
def test_exit_codes(monkeypatch, capsys, more, code, last):
    monkeypatch.setattr(checks.examine, "__defaults__", (WELL | more,))
    assert start(monkeypatch, ["jobs/doctor.py"]) == code
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith(last)
    assert "Traceback" not in out + err


def test_a_config_and_its_keys(monkeypatch, capsys):
    monkeypatch.setattr(checks.examine, "__defaults__", (WELL,))
    command = ["jobs/doctor.py", "--config", "jobs/configs/demo/finetune.yaml"]
    assert start(monkeypatch, [*command, "--run.storage", "/shared/runs"]) == 0
    assert "of training" in capsys.readouterr().out
    assert start(monkeypatch, [*command, "--optimizer.learning_rate", "fast"]) == 1
    assert "must be a number" in capsys.readouterr().out


def test_help_and_the_names_of_the_checks(monkeypatch, capsys):
    assert start(monkeypatch, ["jobs/doctor.py", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python jobs/doctor.py")
    assert start(monkeypatch, ["jobs/doctor.py", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == list(checks.CHECKS)
    assert start(monkeypatch, ["jobs/doctor.py", "config.yaml"]) == 2
    assert "--section.key VALUE" in capsys.readouterr().err
