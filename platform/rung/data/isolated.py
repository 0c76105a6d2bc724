"""Energies of isolated atoms from the files in which they are published."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element

from rung.data.reference import NUM_ELEMENTS

_GZIP: Final = b"\x1f\x8b"


class IsolatedAtomsError(ValueError):
    """A file that does not say what one atom of each element is worth."""


def read_isolated_atoms(path: str | Path, column: str | None = None) -> NDArray[np.float64]:
    """Energy of one free atom of each element: (94,), eV, NaN for elements that the file does not have.

    Understood are MatPES's layouts (records of free atoms, or records of crystals with `energy_atomic`, in a list or
    by any key; `{"element_types": [...], "refs": [...]}`), `{"H": -1.12, ...}`, and CSV with the symbols in the first
    column; all of them plain or gzip.

    Args:
        path: the file.
        column: of a CSV with several columns of energies, usually a functional.

    Raises:
        IsolatedAtomsError: none of these, or a file that contradicts itself.
    """
    path = Path(path).expanduser()
    try:
        pairs = _read(path, column)
    except IsolatedAtomsError:
        raise
    except (gzip.BadGzipFile, ValueError, TypeError, EOFError, zlib.error) as error:
        raise IsolatedAtomsError(
            f"{path} is damaged, or no file of isolated atoms ({error}): give MatPES's JSON,"
            ' {"H": -1.12, ...} or CSV with the symbols first'
        ) from error
    except OSError as error:
        raise IsolatedAtomsError(f"the energies of isolated atoms cannot be read: {error}") from error
    energies = np.full(NUM_ELEMENTS, np.nan)
    for symbol, energy in pairs:
        if not Element.is_valid_symbol(symbol):
            raise IsolatedAtomsError(f"{path}: {symbol!r} is no element")
        place = Element(symbol).Z - 1
        if place >= NUM_ELEMENTS:
            continue
        if np.isfinite(energies[place]) and abs(energies[place] - energy) > 1e-6:
            raise IsolatedAtomsError(f"{path} has two energies of {symbol}: {energies[place]} and {energy} eV")
        energies[place] = energy
    if np.isnan(energies).all():
        raise IsolatedAtomsError(f"{path} has no energy of any element from H to Pu")
    return energies


def _read(path: Path, column: str | None) -> list[tuple[str, float]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if content.startswith(_GZIP) else content).decode("utf-8-sig")
    return _from_json(text, path) if text.lstrip().startswith(("{", "[")) else _from_csv(text, column, path)


def _from_json(text: str, path: Path) -> list[tuple[str, float]]:
    content = json.loads(text)
    if isinstance(content, dict) and {"element_types", "refs"} <= content.keys():
        return [(str(s), float(e)) for s, e in zip(content["element_types"], content["refs"], strict=True)]
    if isinstance(content, dict) and all(isinstance(value, int | float) for value in content.values()):
        return [(symbol, float(energy)) for symbol, energy in content.items()]
    records = content.values() if isinstance(content, dict) else content
    return list(_from_records(records, path))


def _from_records(records: Iterable[Any], path: Path) -> Iterable[tuple[str, float]]:
    for record in records:
        elements = record.get("elements") if isinstance(record, Mapping) else None
        if not isinstance(elements, list) or len(elements) != 1:
            raise IsolatedAtomsError(f"{path} holds something that is no record of one element: {str(record)[:80]}")
        if record.get("energy_atomic") is not None:
            yield elements[0], float(record["energy_atomic"])
        elif record.get("nsites") == 1 and record.get("energy") is not None:
            yield elements[0], float(record["energy"])
        else:
            raise IsolatedAtomsError(
                f"{path}: the record of {elements[0]} has {record.get('nsites')} atoms and neither energy_atomic nor,"
                " for a single atom, energy"
            )


def _from_csv(text: str, column: str | None, path: Path) -> list[tuple[str, float]]:
    rows = list(csv.DictReader(text.splitlines()))
    names = list(rows[0]) if rows else []
    energies = names[1:]
    if column is None and len(energies) == 1:
        column = energies[0]
    if column not in energies:
        raise IsolatedAtomsError(
            f"{path} has the columns {', '.join(energies) or 'none'}; column {column!r} was asked for"
        )
    try:  # a row that is too short has None in its last columns
        return [(row[names[0]].strip(), float(row[column])) for row in rows if (row[column] or "").strip()]
    except ValueError as error:
        raise IsolatedAtomsError(f"{path}, column {column}: {error}") from error
