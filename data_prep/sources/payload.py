"""From the bytes of a raw frame to its crystal structure: pymatgen's JSON, read without building pymatgen's objects."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from pymatgen.core import Element

from data_prep.sources.base import RawFrame
from rung.data.record import Reason, RecordError

_WHOLE_OCCUPANCY: Final = 1e-8

_ATOMIC_NUMBERS: Final = {Element.from_Z(z).symbol: z for z in range(1, 119)} | {"D": 1, "T": 1}


def load_object(frame: RawFrame) -> dict[str, Any]:
    """Parse the bytes of a frame, which have to be a JSON object.

    Raises:
        RecordError: they are something else.
    """
    try:
        value = orjson.loads(frame.payload)
    except orjson.JSONDecodeError:
        value = _load_lenient(frame.payload)
    if not isinstance(value, dict):
        raise RecordError(Reason.MALFORMED, f"found {frame.payload[:40]!r}; a record is a JSON object")
    return value


def required(mapping: Mapping[str, Any], key: str, kind: type[dict] | type[list]) -> Any:
    """The object or list under a key that has to be there.

    Raises:
        RecordError: there is none, or something else.
    """
    value = mapping.get(key)
    if value is None:
        raise RecordError(Reason.MISSING_KEY, f"{key} is missing; found the keys {', '.join(sorted(mapping))[:200]}")
    if not isinstance(value, kind):
        raise RecordError(Reason.MALFORMED, f"{key} is a {type(value).__name__}; expected a {kind.__name__}")
    return value


def read_structure(structure: Mapping[str, Any]) -> dict[str, Any]:
    """Atomic numbers (num_atoms,), lattice (3, 3) in Å and fractional coordinates (num_atoms, 3) of pymatgen's JSON.

    Raises:
        RecordError: a part is missing or damaged, a site is shared or partly empty, or the cell is not periodic.
    """
    lattice = required(structure, "lattice", dict)
    if lattice.get("pbc") not in (None, True, [True, True, True]):
        raise RecordError(
            Reason.MALFORMED, f"the cell has pbc {lattice['pbc']!r:.60}; it must be periodic all three ways"
        )
    matrix = required(lattice, "matrix", list)
    sites = required(structure, "sites", list)
    if not sites or not all(isinstance(site, dict) for site in sites):
        raise RecordError(Reason.MALFORMED, "sites is not a list of one object per atom")
    return {
        "atomic_numbers": np.array([_atomic_number(site) for site in sites]),
        "lattice": matrix,
        "frac_coords": _frac_coords(sites, matrix),
    }


def atomic_numbers(symbols: Sequence[str]) -> NDArray[np.int64]:
    """Atomic numbers (n,) of elements given by their symbols.

    Raises:
        RecordError: a symbol is none of an element.
    """
    unknown = [symbol for symbol in symbols if symbol not in _ATOMIC_NUMBERS]
    if unknown:
        raise RecordError(Reason.UNKNOWN_ELEMENT, f"there is no element {unknown[0][:20]!r}")
    return np.array([_ATOMIC_NUMBERS[symbol] for symbol in symbols], dtype=np.int64)


def _load_lenient(payload: bytes) -> Any:
    # Python's own parser takes the NaN and Infinity that Python's own writer makes; the record then says which label.
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise RecordError(Reason.MALFORMED, f"not JSON: {error}") from error


def _atomic_number(site: Mapping[str, Any]) -> int:
    """Atomic number of the one whole atom of a site; this is called for every atom, so the usual case comes first."""
    try:
        (share,) = site["species"]
        if share["occu"] == 1:
            return _ATOMIC_NUMBERS[share["element"]]
    except (KeyError, TypeError, ValueError):
        pass  # what is unusual about it is found out below
    return _unusual_atomic_number(site)


def _unusual_atomic_number(site: Mapping[str, Any]) -> int:
    """Atomic number of a site that is not the usual one, or why there is none."""
    species = required(site, "species", list)
    if not species or not all(_is_share(share) for share in species):
        raise RecordError(Reason.MALFORMED, f"species is {species!r:.120}; expected elements with their occupancies")
    if len(species) != 1 or abs(species[0].get("occu", 1) - 1) > _WHOLE_OCCUPANCY:
        raise RecordError(Reason.DISORDERED, f"a site is occupied by {species!r:.120}; one whole atom is needed")
    symbol = species[0].get("element")
    if not isinstance(symbol, str):
        raise RecordError(Reason.MISSING_KEY, f"a site has no element: {species!r:.120}")
    if symbol not in _ATOMIC_NUMBERS:
        raise RecordError(Reason.UNKNOWN_ELEMENT, f"there is no element {symbol[:20]!r}")
    return _ATOMIC_NUMBERS[symbol]


def _is_share(share: Any) -> bool:
    return isinstance(share, dict) and isinstance(share.get("occu", 1), int | float)


def _frac_coords(sites: list[dict[str, Any]], matrix: list[Any]) -> Any:
    fractional = [site.get("abc") for site in sites]
    if all(row is not None for row in fractional):
        return fractional
    return _from_cartesian([site.get("xyz") for site in sites], matrix)


def _from_cartesian(cartesian: list[Any], matrix: list[Any]) -> NDArray[np.float64]:
    try:
        positions = np.array(cartesian, dtype=np.float64)
        return positions @ np.linalg.inv(np.array(matrix, dtype=np.float64))
    except (TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise RecordError(Reason.MALFORMED, f"sites have no usable coordinates abc or xyz: {error}") from error
