"""Structures without labels, out of the files that people keep them in: what a model predicts for.

Extended XYZ is cut as text, CIF by its blocks. JSON holds one structure, a list of them, an object of them by name, or
one a line; each is pymatgen's or ASE's, or has pymatgen's under the key `structure`. Everything else is up to ASE. One
frame is held at a time and read elsewhere, so files may be of any size, compressed, and behind a URL.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from pymatgen.io.cif import CifParser

from data_prep.sources.ase_files.cut import content, database_rows, local_copy, other_frames, xyz_frames
from data_prep.sources.ase_files.source import SQLITE, XYZ, structure_of
from data_prep.sources.base import RawFrame
from data_prep.sources.inputs import FileSource, expand, file_name, sizes_of
from data_prep.sources.json_file import JSON_NAMES
from data_prep.sources.payload import load_object, read_structure, required
from data_prep.sources.raw_file import BrokenFileError, RawFile
from data_prep.sources.scan import Scanner
from rung.data.record import Reason, RecordError, StructureRecord

_CIF: Final = re.compile(r"\.(cif|mcif)(\.(gz|bz2))?$", re.IGNORECASE)
_FOLDER: Final = re.compile(
    r"(\.(xyz|extxyz|cif|mcif|json|jsonl|ndjson|db|traj|vasp)(\.(gz|bz2))?|POSCAR|CONTCAR)$", re.IGNORECASE
)
_LARGEST_CIF: Final = 64 << 20  # bytes
_FIRST_KEY: Final = re.compile(rb'\s*\{\s*"([^"]*)"\s*:\s*(.)', re.DOTALL)
_INSIDE_STRUCTURES: Final = (
    b"lattice",
    b"sites",
    b"structure",
    b"numbers",
    b"positions",
    b"cell",
    b"pbc",
    b"properties",
)
_BOOKS_OF_ASE: Final = ("ids", "nextid")
"""What ASE's JSON database holds besides its rows."""


class StructureFiles(FileSource):
    """Streams the structures of files.

    Args:
        paths: files, folders, globs; local, or URLs.

    Raises:
        BrokenFileError: one of them cannot be opened, or names no file.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        super().__init__("structures", sizes_of(expand(paths, _FOLDER)))

    def frames(self) -> Iterator[RawFrame]:
        """Stream raw frames: path is file and name inside it, position the number through all files.

        Raises:
            BrokenFileError: a file is damaged, or of a format that nobody knows.
        """
        position = 0
        for path in self._paths:
            for name, payload in self._payloads(path, self._files.open(path)):
                yield RawFrame((file_name(path), name), position, payload)
                position += 1

    def _payloads(self, path: str, file: RawFile) -> Iterator[tuple[str, bytes]]:
        if XYZ.search(path):
            yield from ((str(number), text) for number, text in enumerate(xyz_frames(file)))
        elif _CIF.search(path):
            yield from _cif_blocks(file)
        elif JSON_NAMES.search(path):
            yield from _json_values(file, path)
        else:
            read = database_rows if file.peek(len(SQLITE)) == SQLITE else other_frames
            with local_copy(file) as local:
                yield from read(local, path)


def read_frame(frame: RawFrame) -> StructureRecord:
    """Turn a raw frame into a structure without labels.

    Raises:
        RecordError: it is damaged, disordered, not periodic, or of elements that CHGNet does not know.
    """
    return StructureRecord(
        **_structure(frame),
        source="structures",
        material_id="structure",
        frame_id=str(frame.position),
        functional="none",
    )


def _structure(frame: RawFrame) -> dict[str, Any]:
    payload = frame.payload.lstrip()
    if payload[:5].lower() == b"data_":
        return _from_cif(payload)
    if payload[:1] != b"{":
        return structure_of(content(frame))
    raw = load_object(frame)
    if "structure" in raw:
        raw = required(raw, "structure", dict)
    return structure_of(_plain_ase(raw)) if "numbers" in raw else read_structure(raw)


def _plain_ase(raw: Mapping[str, Any]) -> dict[str, Any]:
    """ASE's own JSON, whose arrays are `{"__ndarray__": [shape, type, flat values]}`, with plain lists."""
    cell = raw.get("cell")
    if isinstance(cell, Mapping) and "array" in cell:
        cell = cell["array"]
    found = dict(raw) | {"cell": cell}
    return {key: _plain_array(found.get(key)) for key in ("numbers", "positions", "cell", "pbc")}


def _plain_array(value: Any) -> Any:
    if not (isinstance(value, Mapping) and "__ndarray__" in value):
        return value
    try:
        shape, kind, flat = value["__ndarray__"]
        return np.array(flat, dtype=kind).reshape(shape).tolist()
    except (TypeError, ValueError) as error:
        raise RecordError(Reason.MALFORMED, f"an array of ASE's JSON is damaged: {error}") from error


def _from_cif(payload: bytes) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about roundings, once per site
            (structure,) = CifParser.from_str(payload.decode(errors="replace")).parse_structures(primitive=False)
    # pymatgen raises whatever the text happens to break.
    except Exception as error:
        raise RecordError(Reason.MALFORMED, f"pymatgen cannot read the CIF: {error!s:.200}") from error
    if not structure.is_ordered:
        raise RecordError(Reason.DISORDERED, f"{structure.formula} has sites that are shared or partly empty")
    return {
        "atomic_numbers": np.array(structure.atomic_numbers),
        "lattice": structure.lattice.matrix,
        "frac_coords": structure.frac_coords,
    }


def _cif_blocks(file: RawFile) -> Iterator[tuple[str, bytes]]:
    """Each block of a CIF that holds atoms, by its name; a file of publication data alone has none."""
    text = b""
    while block := file.read(1 << 20):
        text += block
        if len(text) > _LARGEST_CIF:
            raise BrokenFileError(f"{file.path} has more than {_LARGEST_CIF >> 20} MiB, too much for a CIF: split it")
    blocks = re.split(rb"(?im)^(?=data_)", text)[1:]
    if not blocks:
        raise BrokenFileError(f"{file.path} is no CIF: no line begins with data_")
    for number, content_of_block in enumerate(blocks):
        if b"_atom_site" in content_of_block or len(blocks) == 1:
            yield str(number), content_of_block


def _json_values(file: RawFile, path: str) -> Iterator[tuple[str, bytes]]:
    for number, span in enumerate(Scanner(file.read, _depth(file.peek(1 << 12)), path)):
        name = span.path[0] if span.path else str(number)
        if not (name in _BOOKS_OF_ASE and span.data[:1] != b"{"):
            yield name, span.data


def _depth(head: bytes) -> int:
    """Depth of the structures in a JSON text, from its beginning: 0 one, or one a line; 1 a list, or by name."""
    found = _FIRST_KEY.match(head.removeprefix(b"\xef\xbb\xbf"))
    if found is None:
        return 1
    key, begins = found.groups()
    return 0 if key in _INSIDE_STRUCTURES or begins != b"{" else 1
