"""Every command that a user is shown is a command that works."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "jobs/configs").rglob("*.yaml"))
JOBS = sorted(path for path in (ROOT / "jobs").glob("*.py") if "run_job" in path.read_text())


def shown_commands() -> list[str]:
    """Commands of the README and the guides, of the jobs' docstrings and of the configs' heads."""
    others = ("README.md", "CONTRIBUTING.md", "k8s/README.md", "data_prep/README.md", "tests/benchmarks/README.md")
    guides = [*(ROOT / name for name in others), *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [path.read_text() for path in [*guides, *JOBS, *CONFIGS]]
    pattern = r"^(?:# +| +)?(?:ray job submit .*-- +)?(?:python|torchrun --nproc-per-node \d+) +(jobs/[^#\n]+)"
    found = (re.findall(pattern, text.replace("\\\n", " "), flags=re.MULTILINE) for text in texts)
    return sorted({" ".join(command.split()) for commands in found for command in commands})


def start(monkeypatch, argv: list[str]) -> int:
    """Run a job's script in this process."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(argv[0], run_name="__main__")
    return stopped.value.code


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_help(monkeypatch, capsys, path):
    assert start(monkeypatch, [str(path.relative_to(ROOT)), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python jobs/{path.name} --config FILE")
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("command", shown_commands())
def test_shown_command_is_a_valid_one(monkeypatch, capsys, command):
    assert start(monkeypatch, [*shlex.split(command), "--dry-run"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_shows_its_command(path):
    assert any(f"--config {path.relative_to(ROOT)}" in command for command in shown_commands())


def test_a_job_runs_as_a_script_of_its_own():
    done = subprocess.run(
        [sys.executable, "jobs/prepare_data.py", "--source.kind", "magic"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "platform:."},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "source.kind = 'magic' (command line): must be one of mptrj, matpes" in done.stderr
    assert "output (command line): missing" in done.stderr


def test_help_and_wrong_settings_are_answered_before_the_heavy_packages_are_imported():
    script = (
        "import contextlib, io, runpy, sys\n"
        "for job in sys.argv[1:]:\n"
        "    for words in (['--help'], ['--no.such.key', '1']):\n"
        "        sys.argv = [job, *words]\n"
        "        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "            runpy.run_path(job, run_name='__main__')\n"
        "    print(job, {'torch', 'ray', 'mlflow', 'pymatgen', 'numpy'} & sys.modules.keys())\n"
    )
    jobs = [f"jobs/{path.name}" for path in JOBS]
    command = [sys.executable, "-c", script, *jobs]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == [f"{job} set()" for job in jobs]
    assert done.stderr.count("unknown key") == len(jobs)
