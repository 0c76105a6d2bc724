"""The guide's notebooks run from nothing, and show what their code prints."""

import re
import socket
from base64 import b64decode
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="pip install -e '.[dev]'")
import nbformat

from tests.unit.docs.notebooks import NOTEBOOKS, ROOT, code_cells, differences, executed, num_pictures, printed, settled

LARGEST_PICTURE = 60_000  # bytes
LINK = re.compile(r"\]\((?P<target>[^)\s#]+)[^)]*\)")
ABSOLUTE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|usr|var|Users|opt)/")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_a_run_from_nothing_prints_what_is_committed(path, tmp_path):
    committed, run = nbformat.read(path, as_version=4), executed(path, tmp_path)
    found = []
    for ours, theirs in zip(code_cells(committed), code_cells(run), strict=True):
        found += [f"{ours.id}: {difference}" for difference in differences(printed(ours), printed(theirs))]
        assert num_pictures(ours) == num_pictures(theirs), ours.id
    assert not found, "\n".join([*found, "write the outputs again: make notebooks"])


@every_notebook
def test_committed_outputs_are_those_of_one_run_in_order(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "make notebooks"
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}


@every_notebook
def test_nothing_is_kept_that_differs_from_run_to_run(path):
    committed = nbformat.read(path, as_version=4)
    assert settled(nbformat.read(path, as_version=4)) == committed, "make notebooks"
    text = "\n".join(printed(cell) for cell in code_cells(committed))
    assert not ABSOLUTE.findall(text)
    assert not [name for name in (str(ROOT), str(Path.home()), socket.gethostname()) if f"{name}/" in text]


@every_notebook
def test_pictures_are_small_and_described(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        pictures = [
            b64decode(output.data["image/png"]) for output in cell.outputs if "image/png" in output.get("data", {})
        ]
        assert all(len(picture) <= LARGEST_PICTURE for picture in pictures), cell.id
        assert bool(pictures) == bool(cell.metadata.get("alt")), f"{cell.id}: metadata.alt says what a picture shows"


@every_notebook
def test_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    inside = [target for target in LINK.findall(text) if not target.startswith(("http://", "https://"))]
    assert inside
    assert not [target for target in inside if not (path.parent / target).exists()]


@pytest.mark.parametrize(
    ("committed", "found", "same"),
    [
        ("refit   42.1 meV/atom", "refit  42.2 meV/atom", True),  # one in the last digit
        ("refit   998.7", "refit  1,004.3", True),  # within the tolerance, and another width
        ("refit   42.1", "refit   44.9", False),
        ("refit   -0.04", "refit   +0.04", False),
        ("240 records", "241 records", False),
        ("refit   42.1", "frozen  42.1", False),
        ("one\ntwo", "one", False),
        ("bonds: 96 of NaCl-1", "bonds: 96 of NaCl-1", True),
    ],
)
def test_numbers_are_compared_as_far_as_processors_agree(committed, found, same):
    assert (not list(differences(committed, found))) is same
