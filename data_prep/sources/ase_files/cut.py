"""Frames out of files that ASE reads, one at a time, and what each of them holds."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, Final

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import filetype

from data_prep.sources.base import RawFrame
from data_prep.sources.inputs import file_name
from data_prep.sources.payload import load_object
from data_prep.sources.raw_file import BrokenFileError, RawFile, is_url
from rung.data.record import Reason, RecordError

_BLOCK: Final = 1 << 20
_MOST_ATOMS: Final = 1_000_000
_LABELS: Final = ("energy", "free_energy", "forces", "stress", "magmoms")
_NO_LABELS: Final = frozenset(
    ("numbers", "positions", "tags", "momenta", "masses", "initial_magmoms", "initial_charges", "species")
)
_NEVER_READ: Final = ("bundletrajectory", "gpw")  # formats that may hold pickled objects


def xyz_frames(file: RawFile) -> Iterator[bytes]:
    """Yield the text of each frame of an extended XYZ file.

    Raises:
        BrokenFileError: a frame does not begin with its number of atoms, or the file ends inside one.
    """
    lines = file.lines()
    number = 0
    for line in lines:
        if not line.strip():
            continue
        count = line.strip()
        if not count.isdigit() or not 0 < int(count) <= _MOST_ATOMS:
            raise BrokenFileError(
                f"{file.path}, frame {number}: it begins with {line[:40]!r}; extended XYZ begins each frame with its"
                " number of atoms"
            )
        frame = [line]
        for _ in range(int(count) + 1):
            following = next(lines, b"")
            if not following:
                raise BrokenFileError(f"{file.path} ends inside frame {number}, which has {int(count)} atoms")
            frame.append(following)
        yield b"".join(frame)
        number += 1


def database_rows(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield id and content of each row of an ASE database.

    Raises:
        BrokenFileError: it is no ASE database.
    """
    try:
        # ASE makes tables of its own in a database that lacks them; what is read here is never written to.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("SELECT id FROM systems LIMIT 1")
        for row in ase.db.connect(path, type="db").select():
            labels = {key: row.get(key) for key in _LABELS if key in row} | dict(row.data) | row.key_value_pairs
            yield str(row.id), _dumped(row.numbers, row.positions, row.cell, row.pbc, labels)
    # sqlite3, zlib, json and ASE each have their own kinds of error for damage.
    except Exception as error:
        raise BrokenFileError(f"{name} is no ASE database, or damaged: {error!r}") from error


def other_frames(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield number and content of each frame of a file of any format that ASE knows.

    Raises:
        BrokenFileError: ASE does not know the format, cannot read the file, or might run code that it holds.
    """
    # Each of ASE's hundred formats has its own kinds of error.
    try:
        form = filetype(str(path), read=True)
    except Exception as error:
        raise BrokenFileError(f"ASE does not know the format of {name}: {error!r:.200}") from error
    if form in _NEVER_READ:
        raise BrokenFileError(f"{name} is of the format {form}, which may hold Python pickles: it is never read")
    try:
        for number, atoms in enumerate(ase.io.iread(str(path), index=":", format=form)):
            yield str(number), dumped_atoms(atoms)
    except Exception as error:
        raise BrokenFileError(f"ASE cannot read {name} as {form}: {error!r:.200}") from error


def dumped_atoms(atoms: Atoms) -> bytes:
    """A frame of ASE as JSON: structure, and labels by their keys; the calculator's own win over info and arrays."""
    arrays = {key: value for key, value in atoms.arrays.items() if key not in _NO_LABELS}
    results = getattr(atoms.calc, "results", {})
    return _dumped(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, arrays | atoms.info | results)


def content(frame: RawFrame) -> dict[str, Any]:
    """Structure and labels of a frame, be it the text of extended XYZ or JSON; units as in the file.

    Raises:
        RecordError: it is neither.
    """
    if frame.payload.lstrip()[:1] == b"{":
        return load_object(frame)
    try:
        atoms = ase.io.read(StringIO(frame.payload.decode()), format="extxyz")
    # ASE raises whatever the text happens to break.
    except Exception as error:
        raise RecordError(Reason.MALFORMED, f"ASE cannot read the frame: {error!r:.200}") from error
    assert isinstance(atoms, Atoms)  # noqa: S101 - one frame was asked for
    return json.loads(dumped_atoms(atoms))


@contextmanager
def local_copy(file: RawFile) -> Iterator[Path]:
    """Give the file's path on this machine, decompressed: a copy of it where it is elsewhere or compressed."""
    if not is_url(file.path) and not file.is_compressed:
        yield Path(file.path)
        return
    with tempfile.TemporaryDirectory(prefix="rung-") as folder:
        copy = Path(folder) / file_name(str(file.path)).removesuffix(".gz").removesuffix(".bz2")
        with copy.open("wb") as target:
            while block := file.read(_BLOCK):
                target.write(block)
        yield copy


def _dumped(numbers: Any, positions: Any, cell: Any, pbc: Any, labels: Mapping[str, Any]) -> bytes:
    found = {str(key): value for key, value in labels.items() if value is not None and _is_plain(value)}
    structure = {"numbers": numbers, "positions": positions, "cell": cell, "pbc": pbc}
    # Python's own writer keeps NaN, so that the record can say which label holds it.
    return json.dumps(structure | {"labels": found}, default=_plain).encode()


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | list | np.ndarray | np.generic) and not (
        isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "fiubU"
    )


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
