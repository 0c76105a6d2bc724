"""Tables of isolated atoms: reference energies, not training data.

Columns of a CSV file (`Element,PBE,SCAN,r2SCAN`; eV), or MatPES's `{"element_types": [...], "refs": [...]}`. A free
atom has no neighbour, so each is refused as `isolated_atom`: the kind is there so that such a file is not taken for a
data set, and says how many atoms of which functional it holds.
"""

import csv
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from data_prep.functionals import functional_name, known_functional
from data_prep.labels import optional_number
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.inputs import FileSource, absolute, sizes_of
from data_prep.sources.json_file import JSON_CHUNK, FrameParser
from data_prep.sources.payload import atomic_numbers, load_object
from data_prep.sources.raw_file import BrokenFileError
from rung.config.preparation import SourceConfig
from rung.data.record import Reason, RecordError, StructureRecord

_BOX: Final = 30.0  # Å, beyond any cutoff


class AtomParser(FrameParser):
    """Reads one atom of one functional."""

    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn it into a record of one atom in a large box."""
        raw = load_object(frame)
        energy = optional_number(raw, "energy")
        if energy is None:
            raise RecordError(Reason.NO_LABEL, "the table has no energy here")
        record = StructureRecord(
            atomic_numbers=atomic_numbers([str(raw.get("element"))]).astype(np.uint8),
            lattice=_BOX * np.eye(3),
            frac_coords=np.zeros((1, 3)),
            energy=energy,
            source=self.source,
            material_id=f"atom-{raw.get('element')}",
            frame_id="-".join(frame.path),
            functional=functional_name(str(raw.get("functional") or "")),
        )
        return ParsedFrame(record, "energy")


class AtomTable(FileSource):
    """Reads tables of isolated atoms.

    Args:
        config: of the source.
        name: of the data set.

    Raises:
        BrokenFileError: a file cannot be opened.
        ValueError: source.functional is not known.
    """

    chunk = JSON_CHUNK

    def __init__(self, config: SourceConfig, name: str) -> None:
        super().__init__(name, sizes_of([absolute(path) for path in config.paths]))
        self.parser = AtomParser(name)
        self._stated = None if config.functional is None else known_functional(config.functional)

    def frames(self) -> Iterator[RawFrame]:
        """Give each atom of each functional, by rows."""
        position = 0
        for path in self._paths:
            for element, functional, energy in self._entries(path):
                content = {"element": element, "functional": functional or self._stated, "energy": energy}
                yield RawFrame((str(element), str(functional)), position, json.dumps(content).encode())
                position += 1

    def _entries(self, path: str) -> Iterator[tuple[Any, str | None, Any]]:
        try:
            text = b"".join(self._files.open(path).lines()).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BrokenFileError(f"{path} is not UTF-8 text: {error}") from error
        if text.lstrip().startswith("{"):
            yield from _references(text, path)
            return
        rows = list(csv.reader(text.splitlines()))
        if not rows or rows[0][:1] != ["Element"] or len(rows[0]) < 2:
            raise BrokenFileError(f"{path} is no table of atoms: its first line must be Element,PBE,... as functionals")
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(rows[0]):
                raise BrokenFileError(f"{path}, line {number}: {len(row)} columns; the first line has {len(rows[0])}")
            for functional, value in zip(rows[0][1:], row[1:], strict=True):
                yield row[0], functional, _number(value)


def open_atoms(config: SourceConfig, name: str) -> AtomTable:
    """Open tables of isolated atoms."""
    return AtomTable(config, name)


def _references(text: str, path: str) -> Iterator[tuple[Any, str | None, Any]]:
    try:
        table = json.loads(text)
        pairs = list(zip(table["element_types"], table["refs"], strict=True))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenFileError(f"{path} must hold equally long lists element_types and refs: {error!r:.100}") from error
    yield from ((element, None, energy) for element, energy in pairs)


def _number(text: str) -> float | str | None:
    """A number of the table; what is none is left to be refused."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text
