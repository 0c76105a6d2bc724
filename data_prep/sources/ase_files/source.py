"""Files that ASE reads as a source.

Extended XYZ is cut as text, so it may be of any size, compressed, and behind a URL; databases are read row by row.
Other formats are read as ASE does. Labels are what ASE's calculator holds, or keys of the frame's info and arrays by
other names (source.ase). ASE's stress is in eV/Å³ and positive under tension. A label that is missing stays missing,
and initial magnetic moments are no label.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_prep.functionals import functional_name, known_functional
from data_prep.labels import ase_stress, material_name, optional_number
from data_prep.sources.ase_files.cut import content, database_rows, local_copy, other_frames, xyz_frames
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.inputs import FileSource, expand, file_name, sizes_of
from data_prep.sources.json_file import JSON_CHUNK, FrameParser
from data_prep.sources.payload import required
from rung.config.preparation import AseConfig, EnergyChoice, SourceConfig
from rung.data.formula import reduced_formula
from rung.data.record import Reason, RecordError, StructureRecord

SQLITE: Final = b"SQLite format 3\0"
XYZ: Final = re.compile(r"\.(xyz|extxyz)(\.(gz|bz2))?$", re.IGNORECASE)
_FOLDER: Final = re.compile(r"\.(xyz|extxyz|db|traj)(\.(gz|bz2))?$", re.IGNORECASE)


@dataclass(frozen=True)
class AseParser(FrameParser):
    """Reads frames of ASE.

    Attributes:
        functional: of frames that do not state it; None refuses them.
        energy: which energy is the label: ASE's energy, or its free energy.
        keys: where the labels are.
    """

    functional: str | None
    energy: EnergyChoice
    keys: AseConfig

    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn one frame into a record."""
        raw = content(frame)
        structure = structure_of(raw)
        found = required(raw, "labels", dict)
        functional = _text(found, self.keys.functional) or self.functional
        if functional is None:
            raise RecordError(
                Reason.MISSING_KEY, f"{self.keys.functional} is missing; set source.functional if you know it"
            )
        energy_key = "free_energy" if self.energy == "free" else self.keys.energy
        energy = optional_number(found, energy_key)
        forces, magmoms = found.get(self.keys.forces), found.get(self.keys.magmoms)
        stress = ase_stress(found.get(self.keys.stress))
        if energy is None and forces is None and stress is None and magmoms is None:
            wanted = f"{energy_key}, {self.keys.forces}, {self.keys.stress}, {self.keys.magmoms}"
            there = ", ".join(sorted(found)) or "none"
            raise RecordError(Reason.NO_LABEL, f"it has none of {wanted}; its keys are {there[:200]}: see source.ase")
        record = StructureRecord(
            **structure,
            energy=energy,
            forces=forces,
            stress=stress,
            magmoms=_lengths(magmoms),
            source=self.source,
            material_id=material_name(_text(found, self.keys.material) or _formula(structure["atomic_numbers"])),
            frame_id=_text(found, self.keys.frame) or "-".join(frame.path),
            functional=functional_name(functional),
        )
        return ParsedFrame(record, None if energy is None else energy_key)


class AseFiles(FileSource):
    """Streams the frames of files that ASE reads.

    Args:
        config: of the source.
        name: of the data set.

    Raises:
        BrokenFileError: a path cannot be opened, or names no file.
        ValueError: source.functional is not known.
    """

    chunk = JSON_CHUNK

    def __init__(self, config: SourceConfig, name: str) -> None:
        super().__init__(name, sizes_of(expand(config.paths, _FOLDER)))
        stated = None if config.functional is None else known_functional(config.functional)
        self.parser = AseParser(name, stated, config.energy_choice, config.ase)

    def frames(self) -> Iterator[RawFrame]:
        """Stream the frames in the order of the files, and number them."""
        position = 0
        for path in self._paths:
            above = (file_name(path),) if len(self._paths) > 1 else ()
            for identity, payload in self._payloads(path):
                yield RawFrame((*above, identity), position, payload)
                position += 1

    def _payloads(self, path: str) -> Iterator[tuple[str, bytes]]:
        file = self._files.open(path)
        if XYZ.search(path):
            yield from ((str(number), text) for number, text in enumerate(xyz_frames(file)))
            return
        read = database_rows if file.peek(len(SQLITE)) == SQLITE else other_frames
        with local_copy(file) as local:
            yield from read(local, path)


def open_ase(config: SourceConfig, name: str) -> AseFiles:
    """Open files that ASE reads."""
    return AseFiles(config, name)


def structure_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The structure of a frame of ASE (numbers, positions and cell in Å, pbc).

    Returns:
        atomic_numbers (num_atoms,), lattice (3, 3) in Å, rows, and frac_coords (num_atoms, 3).

    Raises:
        RecordError: a key is missing, the cell is not periodic all three ways, or the arrays do not fit together.
    """
    numbers, cell, pbc = (required(raw, key, list) for key in ("numbers", "cell", "pbc"))
    if pbc != [True, True, True]:
        raise RecordError(Reason.MALFORMED, f"the cell has pbc {pbc!r:.60}; it must be periodic all three ways")
    try:
        lattice, positions = (np.array(value, dtype=np.float64) for value in (cell, raw.get("positions")))
        frac_coords = np.linalg.solve(lattice.T, positions.T).T
    except (TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise RecordError(Reason.MALFORMED, f"cell and positions do not fit together: {error}") from error
    return {"atomic_numbers": np.array(numbers), "lattice": lattice, "frac_coords": frac_coords}


def _text(found: Mapping[str, Any], key: str) -> str | None:
    value = found.get(key)
    return str(value) if isinstance(value, str | int) and str(value).strip() else None


def _lengths(magmoms: Any) -> Any:
    """Moments without direction: the lengths of those that have one."""
    try:
        moments = np.array(magmoms, dtype=np.float64)
    except (TypeError, ValueError):
        return magmoms
    return np.linalg.norm(moments, axis=1) if moments.ndim == 2 and moments.shape[1] == 3 else magmoms


def _formula(numbers: NDArray[np.integer]) -> str:
    """Reduced formula: frames without a name share a material with all of their composition, so none is split off."""
    elements, counts = np.unique(numbers, return_counts=True)
    try:
        return reduced_formula(elements, counts)
    except ValueError as error:
        raise RecordError(Reason.UNKNOWN_ELEMENT, f"no formula of the elements {elements.tolist()}: {error}") from error
