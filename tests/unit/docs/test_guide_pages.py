"""The guide says what is so: links lead somewhere, code runs, generated pages are up to date, and the site builds."""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from rung.config.document import TREES, page

ROOT = Path(__file__).resolve().parents[3]
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "k8s/README.md", "data_prep/README.md")
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in (*OUTSIDE, "tests/benchmarks/README.md")),
]
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)

# A block after <!-- runs --> is run in an empty folder; a text block right after it is what it prints.
BLOCK = re.compile(
    r"(?P<runs><!-- runs -->\n+)?^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<prints>.*?)^```)?",
    flags=re.MULTILINE | re.DOTALL,
)

# A block after <!-- session -->: one command, and all that it says.
SESSION = re.compile(r"<!-- session -->\n+```\n\$ python (?P<command>.*)\n(?P<says>(?:.*\n)*?)```")

# A paragraph or table after <!-- measured -->: all of its figures stand in the benchmarks' README.
MEASURED = re.compile(r"<!-- measured -->\n+(?P<text>(?:.+\n)+)")
FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")

# What a page loads from another server, which the site must do without.
FROM_ELSEWHERE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks() -> list[tuple[str, re.Match[str]]]:
    return [
        (f"{named(path)}:{path.read_text()[: match.start('code')].count(chr(10)) + 1}", match)
        for path in PAGES
        for match in BLOCK.finditer(path.read_text())
    ]


def test_every_job_has_its_settings_in_the_reference():
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py") if "run_job" in path.read_text()}
    assert set(TREES) == jobs


def test_reference_of_the_settings_is_up_to_date():
    written = (ROOT / "docs/reference/configuration.md").read_text()
    assert written == page(), "write it again: make docs"


def test_reference_names_every_key_with_default_unit_and_bounds():
    text = page()
    assert "| `graph.atom_cutoff` | a number > 0 and &lt;= 20 (Å) | `6.0` |" in text
    assert "| `source.kind` | one of mptrj, matpes, mp_api, vasp, ase, atoms, surrogate | required |" in text
    assert "| `sweep.space` | a mapping | required |" in text


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_links_and_images_of_this_repository_exist(path):
    targets = LINK.findall(FENCED.sub("", path.read_text()))
    inside = [target.partition("#")[0] for target in targets if not target.startswith(("http://", "https://", "#"))]
    assert not [target for target in inside if not (path.parent / target).exists()]


@pytest.mark.parametrize(("place", "match"), [pytest.param(*block, id=block[0]) for block in blocks()])
def test_python_of_the_guide(place, match, tmp_path, monkeypatch):
    code = compile(match["code"], place, "exec")
    if not match["runs"]:
        return
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert match["prints"] is None or printed.getvalue() == match["prints"]


@pytest.mark.parametrize("path", [path for path in PAGES if MEASURED.search(path.read_text())], ids=named)
def test_measured_figures_are_those_of_the_benchmarks(path):
    measured = {figure.rstrip(",") for figure in FIGURE.findall((ROOT / "tests/benchmarks/README.md").read_text())}
    texts = [LINK.sub("]", match["text"]) for match in MEASURED.finditer(path.read_text())]
    quoted = [figure.rstrip(",") for text in texts for figure in FIGURE.findall(text)]
    assert not set(quoted) - measured


@pytest.mark.parametrize(
    "session",
    [match for path in PAGES for match in SESSION.finditer(path.read_text())],
    ids=lambda match: match["command"],
)
def test_sessions_of_the_guide(session, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    argv = shlex.split(session["command"])
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(argv[0], run_name="__main__")
    said = capsys.readouterr()
    assert said.out + said.err == session["says"]
    assert stopped.value.code == (2 if said.err else 0)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="MkDocs is not installed: pip install -e '.[dev]'")
def test_the_site_builds_strictly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {str(path.relative_to(tmp_path / "site")): path.read_text() for path in (tmp_path / "site").rglob("*.html")}
    assert {"reference/configuration/index.html", "notebooks/records-to-model/index.html"} <= pages.keys()
    assert not [name for name, text in pages.items() if FROM_ELSEWHERE.search(text)]
