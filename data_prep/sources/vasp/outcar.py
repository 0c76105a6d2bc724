"""OUTCAR: cut into ionic steps as a stream, and the arrays of one step.

Of each step only the lines with labels are kept. Magnetic moments that VASP prints at the end of a run belong to its
last step.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_prep.functionals import VASP_TAGS
from data_prep.sources.raw_file import BrokenFileError, RawFile
from data_prep.sources.vasp.run import LARGEST_STEP, Settings, Step, settings_of
from rung.data.record import Reason, RecordError

_ITERATION: Final = re.compile(rb"- Iteration +(\d+)\( *(\d+)\)")
_ONE_LINE: Final = (b"aborting loop", b"  in kB ", b"free  energy   TOTEN", b"energy  without entropy=")
_NUMBER: Final = r"[-+]?\d*\.\d+(?:[Ee][-+]?\d+)?"
_ROW: Final = re.compile(_NUMBER)  # VASP's columns may touch
_ONLY_NUMBERS: Final = re.compile(r"[\s\d.eE+-]*")
_FREE: Final = re.compile(rf"free  energy   TOTEN  = +({_NUMBER})")
_OTHER: Final = re.compile(rf"energy  without entropy= *({_NUMBER}) +energy\(sigma->0\) = *({_NUMBER})")
_TAG: Final = re.compile(r"^ *([A-Z_]+) *= *(\S+)")
_ELECTRONIC: Final = "electronic steps: "


def cut_outcar(file: RawFile) -> Iterator[Step]:
    """Yield the ionic steps of a run.

    Raises:
        BrokenFileError: the file is no OUTCAR, or damaged.
    """
    lines = file.lines()
    head, line = _head(lines)
    settings = _settings(head, str(file.path))
    if not line:
        yield Step(1, "", None, f"{file.path} has no ionic step: the run stopped before its first one")
        return
    kept: list[bytes] = []
    current = electronic = wanted = num_bytes = 0
    while line:
        iteration = _ITERATION.search(line) if b"Iteration" in line else None
        if iteration is not None:
            number = int(iteration[1])
            if current and number != current:
                yield _step(current, electronic, kept, settings, str(file.path))
                kept, num_bytes = [], 0
            current, electronic = number, int(iteration[2])
        wanted = max(wanted - 1, _following(line, len(settings.symbols)))
        if wanted:
            kept.append(line)
            num_bytes += len(line)
            if num_bytes > LARGEST_STEP:
                raise BrokenFileError(f"{file.path}: ionic step {current} has more than {LARGEST_STEP >> 20} MiB")
        line = next(lines, b"")
    yield _step(current, electronic, kept, settings, str(file.path))


def read_incar(text: str) -> dict[str, str]:
    """The tags of an INCAR that decide about functional, convergence and kind of calculation."""
    statements = (statement for line in text.splitlines() for statement in re.split(r"[;]", re.split(r"[#!]", line)[0]))
    pairs = (statement.partition("=") for statement in statements if "=" in statement)
    tags = {tag.strip().upper(): value.strip() for tag, _, value in pairs}
    return {tag: value for tag, value in tags.items() if tag in VASP_TAGS}


def read_outcar_step(text: str) -> dict[str, Any]:
    """What a step holds, by name; None where it is absent.

    Returns:
        rows of text, not yet numbers: lattice (3, 3) and positions (num_atoms, 3), Å; forces (num_atoms, 3), eV/Å;
        stress, Voigt (6,), kbar with VASP's sign. Beside them energies by VASP's key, eV; the number of electronic
        steps, and whether they converged.

    Raises:
        RecordError: the step has no energy, or a stress of other components.
    """
    lines = text.splitlines()
    free, others = _FREE.findall(text), _OTHER.findall(text)
    if not free:
        raise RecordError(Reason.MISSING_KEY, "the ionic step has no energy")
    energies = {"e_fr_energy": float(free[-1])}
    if others:
        energies |= {"e_wo_entrp": float(others[-1][0]), "e_0_energy": float(others[-1][1])}
    table = _table(lines, "TOTAL-FORCE", 2)
    lattice = _table(lines, "direct lattice vectors", 1)
    stress = next((line for line in reversed(lines) if line.startswith("  in kB")), None)
    return {
        "lattice": None if lattice is None else [row[:3] for row in lattice],
        "positions": None if table is None else [row[:3] for row in table],
        "forces": None if table is None else [row[3:] for row in table],
        # VASP's order is xx yy zz xy yz zx.
        "stress": None if stress is None else _voigt(_ROW.findall(stress)),
        "energies": energies,
        "electronic_steps": int(lines[0].removeprefix(_ELECTRONIC)) if lines[0].startswith(_ELECTRONIC) else None,
        "converged": True if "EDIFF is reached" in text else False if "EDIFF was not reached" in text else None,
    }


def read_moments(text: str) -> NDArray[np.float32] | None:
    """The moments (num_atoms,) of a step, μB: the last that it has; their length where they have a direction.

    Raises:
        RecordError: the tables of the three directions are of different length.
    """
    lines = text.splitlines()
    axes = [_table(lines, f"magnetization ({axis})", 4) for axis in "xyz"]
    if axes[0] is None:
        return None
    totals = [[row[-1] for row in axis] for axis in axes if axis is not None]
    if len({len(total) for total in totals}) != 1:
        raise RecordError(Reason.WRONG_SHAPE, "the magnetizations along x, y and z have different numbers of atoms")
    return np.linalg.norm(np.array(totals, dtype=np.float64), axis=0).astype(np.float32)


def _following(line: bytes, num_atoms: int) -> int:
    """How many lines to keep, this one included."""
    if b"TOTAL-FORCE (eV/Angst)" in line:
        return 2 + num_atoms
    if b"magnetization (" in line:
        return 4 + num_atoms
    if b"direct lattice vectors" in line:
        return 4
    return int(any(mark in line for mark in _ONE_LINE))


def _step(number: int, electronic: int, kept: Sequence[bytes], settings: Settings, name: str) -> Step:
    text = f"{_ELECTRONIC}{electronic}\n" + b"".join(kept).decode("latin-1")
    whole = "free  energy   TOTEN" in text and "TOTAL-FORCE" in text
    broken = "" if whole else f"{name} ends inside ionic step {number}: the run stopped there"
    return Step(number, text, settings, broken)


def _head(lines: Iterator[bytes]) -> tuple[str, bytes]:
    """The lines before the first iteration that say what was calculated, and the line that ends them (empty: none)."""
    kept: list[bytes] = []
    num_bytes = 0
    for line in lines:
        if b"Iteration" in line and _ITERATION.search(line):
            return b"".join(kept).decode("latin-1"), line
        if b"=" in line or not kept:
            kept.append(line)
            num_bytes += len(line)
            if num_bytes > LARGEST_STEP:
                break
    return b"".join(kept).decode("latin-1"), b""


def _settings(head: str, name: str) -> Settings:
    lines = head.splitlines()
    if not lines or "vasp" not in lines[0].lower():
        raise BrokenFileError(f"{name} is no OUTCAR: it begins with {head[:40]!r}")
    potcars = [line.partition("=")[2].strip() for line in lines if line.strip().startswith("TITEL")]
    types = [line.partition("=")[2].partition(":")[0].strip() for line in lines if line.strip().startswith("VRHFIN")]
    counts = next((line.partition("=")[2].split() for line in lines if "ions per type" in line), [])
    tags: dict[str, Any] = {}
    for line in lines:
        found = _TAG.match(line)
        if found and found[1] in VASP_TAGS and found[2].strip("-;") not in ("", "F"):
            tags[found[1]] = found[2].rstrip(";")
        if "LDAUU =" in line:
            tags |= {"LDAU": "T", "LDAUU": line.partition("=")[2].strip()}
        elif "LDAUJ =" in line and line.lstrip().startswith("J"):
            tags["LDAUJ"] = line.partition("=")[2].strip()
    # A run may have stopped before it listed its atoms.
    if len(types) < len(counts) or not all(count.isdigit() for count in counts):
        raise BrokenFileError(f"{name} does not list its atoms (VRHFIN {types}, ions per type {counts})")
    symbols = [symbol for symbol, count in zip(types, counts, strict=False) for _ in range(int(count))]
    return settings_of(symbols, types, potcars, tags)


def _table(lines: Sequence[str], title: str, skipped: int) -> list[list[str]] | None:
    """The rows of numbers of the last table of a title, until a line that has none."""
    start = next((i for i in range(len(lines) - 1, -1, -1) if title in lines[i]), None)
    if start is None:
        return None
    rows = []
    for line in lines[start + skipped :]:
        row = _ROW.findall(line)
        if not row or not _ONLY_NUMBERS.fullmatch(line):
            break
        rows.append(row)
    return rows


def _voigt(values: Sequence[str]) -> list[str]:
    """VASP's xx yy zz xy yz zx in the order xx yy zz yz xz xy."""
    if len(values) != 6:
        raise RecordError(Reason.WRONG_SHAPE, f"the stress in kB has {len(values)} components")
    xx, yy, zz, xy, yz, zx = values
    return [xx, yy, zz, yz, zx, xy]
