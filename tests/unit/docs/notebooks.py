"""Running the guide's notebooks, and what is kept of them.

python -m tests.unit.docs.notebooks      runs all of them and writes the outputs into their files
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\d)")
TOLERANCE = 0.02
"""Other processors sum in another order, and training carries that on: printed decimals may differ by this share."""


def executed(path: Path, folder: Path) -> NotebookNode:
    """Run a notebook in a folder from its first cell to its last, on one core and without a tracker.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MPL"))}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
        "IPYTHONDIR": str(folder / ".ipython"),
    }
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where, coalesce_streams=True)
    client.execute(env=environment)
    return settled(notebook)


def settled(notebook: NotebookNode) -> NotebookNode:
    """Drop what differs from run to run: times, versions, and stderr, which shows progress and speed."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "alt"}
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.data = {"image/png": output.data["image/png"]}
                output.metadata = {}
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: NotebookNode) -> str:
    """What a cell shows as text."""
    texts = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    return "".join(texts)


def num_pictures(cell: NotebookNode) -> int:
    """How many pictures a cell shows."""
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def differences(committed: str, found: str) -> Iterator[str]:
    """Lines of two texts that say something else.

    Words and whole numbers are compared exactly; a number with decimals may differ by one in its last digit, or by
    `TOLERANCE`.
    """
    ours, theirs = committed.splitlines(), found.splitlines()
    if len(ours) != len(theirs):
        yield f"{len(ours)} lines are committed, {len(theirs)} were printed"
    for one, other in zip(ours, theirs, strict=False):
        if not _same(one, other):
            yield f"- {one}\n+ {other}"


def _same(one: str, other: str) -> bool:
    if one.split() == other.split():
        return True
    if NUMBER.sub("#", one).split() != NUMBER.sub("#", other).split():
        return False
    return all(map(_near, NUMBER.findall(one), NUMBER.findall(other)))


def _near(one: str, other: str) -> bool:
    if "." not in one:
        return one == other
    first, second = (float(number.replace(",", "")) for number in (one, other))
    last_digit = 10.0 ** -len(one.partition(".")[2].partition("e")[0])
    return abs(first - second) <= max(1.01 * last_digit, TOLERANCE * abs(first))


def main() -> None:
    """Run every notebook and write it back with its outputs."""
    for path in NOTEBOOKS:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"{path.relative_to(ROOT)}: {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
