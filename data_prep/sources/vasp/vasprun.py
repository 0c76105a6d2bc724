"""vasprun.xml: cut into ionic steps as a stream, and the arrays of one step.

A file of many gigabytes is read in blocks: what is large in it (eigenvalues, densities of states, projections) goes by
without being kept. VASP writes the file itself, so its tags are looked for as text; only a step's own few kilobytes are
parsed as XML, which cannot define entities.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any, Final

from data_prep.sources.raw_file import BrokenFileError, RawFile
from data_prep.sources.vasp.run import LARGEST_STEP, Settings, Step, settings_of
from rung.data.record import Reason, RecordError

_BLOCK: Final = 1 << 20
_STEP_BEGINS: Final = b"<calculation>"
_STEP_ENDS: Final = b"</calculation>"
_DROPPED: Final = {
    b"<eigenvalues>": b"</eigenvalues>",
    b"<dos>": b"</dos>",
    b"<dos ": b"</dos>",
    b"<projected>": b"</projected>",
    b"<dielectricfunction": b"</dielectricfunction>",
    b"<dynmat>": b"</dynmat>",
}
"""Parts of a step that are left out, and how they end."""


def cut_vasprun(file: RawFile) -> Iterator[Step]:
    """Yield the ionic steps of a run.

    Raises:
        BrokenFileError: the file is no vasprun.xml, or damaged beyond a step.
    """
    stream = _Stream(file)
    head, marker = stream.until((_STEP_BEGINS,))
    if b"<modeling" not in head:
        raise BrokenFileError(f"{file.path} is no vasprun.xml: it begins with {head[:40]!r}")
    if not marker:
        yield Step(1, "", None, f"{file.path} has no ionic step: the run stopped before its first one")
        return
    settings = _settings(head, str(file.path))
    number = 0
    while marker:
        number += 1
        text, whole = _step(stream)
        broken = "" if whole else f"{file.path} ends inside ionic step {number}: the run stopped there"
        yield Step(number, text, settings, broken)
        _, marker = stream.until((_STEP_BEGINS,), keep=False)


def read_vasprun_step(text: str) -> dict[str, Any]:
    """What a step holds, by name; None where it is absent.

    Returns:
        rows of text, not yet numbers: lattice (3, 3), Å; frac_coords (num_atoms, 3); forces (num_atoms, 3), eV/Å;
        stress (3, 3), kbar with VASP's sign. Beside them energies by VASP's key, eV; the number of electronic steps.

    Raises:
        RecordError: the step is not XML, or has no energy.
    """
    try:
        step = ET.fromstring(text)  # noqa: S314 - the text has no head, so it cannot define entities
    except ET.ParseError as error:
        raise RecordError(Reason.MALFORMED, f"the ionic step is not XML: {error}") from error
    energy = step.find("energy")
    if energy is None:
        raise RecordError(Reason.MISSING_KEY, "the ionic step has no energy")
    return {
        "lattice": _rows(step, "structure/crystal/varray[@name='basis']"),
        "frac_coords": _rows(step, "structure/varray[@name='positions']"),
        "forces": _rows(step, "varray[@name='forces']"),
        "stress": _rows(step, "varray[@name='stress']"),
        "energies": {str(entry.get("name")): _energy(entry) for entry in energy.findall("i")},
        "electronic_steps": len(step.findall("scstep")),
        "converged": None,
    }


class _Stream:
    """The text of a file up to one marker after the other."""

    def __init__(self, file: RawFile) -> None:
        self._file = file
        self._buffer = b""

    def until(self, markers: tuple[bytes, ...], *, keep: bool = True) -> tuple[bytes, bytes]:
        """Return the text up to the first of some markers and that marker, which is gone then; empty at the end.

        Args:
            markers: to look for.
            keep: whether the text is wanted.
        """
        kept: list[bytes] = []
        num_bytes = 0
        margin = max(map(len, markers)) - 1
        while True:
            found = min(
                ((self._buffer.find(marker), marker) for marker in markers if marker in self._buffer), default=None
            )
            if found is not None:
                position, marker = found
                kept.append(self._buffer[:position])
                self._buffer = self._buffer[position + len(marker) :]
                return (b"".join(kept) if keep else b""), marker
            passed = max(len(self._buffer) - margin, 0)
            if keep:
                kept.append(self._buffer[:passed])
                num_bytes += passed
            self._buffer = self._buffer[passed:]
            if num_bytes > LARGEST_STEP:
                raise BrokenFileError(f"{self._file.path}: no {markers[0].decode()} within {LARGEST_STEP >> 20} MiB")
            block = self._file.read(_BLOCK)
            if not block:
                rest, self._buffer = self._buffer, b""
                return (b"".join([*kept, rest]) if keep else b""), b""
            self._buffer += block


def _step(stream: _Stream) -> tuple[str, bool]:
    """The text of the step that the stream stands in, and whether all that is wanted of it was there."""
    parts = [_STEP_BEGINS]
    while True:
        text, marker = stream.until((_STEP_ENDS, *_DROPPED))
        parts.append(text)
        if marker in _DROPPED:
            _, marker = stream.until((_DROPPED[marker],), keep=False)
            if marker:
                continue
            # The file ends inside what is left out. The labels stand before that.
            whole = b"</energy>" in parts[-1]
        else:
            whole = bool(marker)
        return b"".join([*parts, _STEP_ENDS]).decode("latin-1"), whole


def _settings(head: bytes, name: str) -> Settings:
    sections = {part: _section(head, part, name) for part in ("parameters", "incar", "atominfo")}
    # The tags that were asked for win over VASP's own report of its parameters, where some are cut short.
    tags = {
        str(entry.get("name")): (entry.text or "").strip()
        for part in ("parameters", "incar")
        for kind in ("i", "v")
        for entry in sections[part].iter(kind)
    }
    symbols = [_cell(row, 0) for row in sections["atominfo"].iterfind("array[@name='atoms']/set/rc")]
    kinds = list(sections["atominfo"].iterfind("array[@name='atomtypes']/set/rc"))
    if not symbols:
        raise BrokenFileError(f"{name} does not list its atoms (atominfo)")
    return settings_of(symbols, [_cell(row, 1) for row in kinds], [_cell(row, 4) for row in kinds], tags)


def _section(head: bytes, part: str, name: str) -> ET.Element:
    begin, end = head.find(f"<{part}>".encode()), head.find(f"</{part}>".encode())
    text = head[begin : end + len(part) + 3] if 0 <= begin < end else f"<{part}/>".encode()
    try:
        return ET.fromstring(text.decode("latin-1"))  # noqa: S314 - the text has no head, so it cannot define entities
    except ET.ParseError as error:
        raise BrokenFileError(f"{name}: its section {part} is not XML: {error}") from error


def _cell(row: ET.Element, column: int) -> str:
    cells = row.findall("c")
    return (cells[column].text or "").strip() if column < len(cells) else ""


def _rows(step: ET.Element, place: str) -> list[list[str]] | None:
    rows = step.findall(f"{place}/v")
    return [(row.text or "").split() for row in rows] if rows else None


def _energy(entry: ET.Element) -> float | None:
    try:
        return float(entry.text or "")
    except ValueError as error:
        raise RecordError(Reason.NOT_FINITE, f"{entry.get('name')} is {entry.text!r:.40}, not a number") from error
