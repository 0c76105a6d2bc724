"""MatPES (Kaplan et al., arXiv 2503.04070): complete records with their own functional, in any layout of its files.

A JSON list, `{"samples": [...]}`, JSON lines, or `{any key: record}` as the element references; plain or gzip.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from data_prep.functionals import functional_name, known_functional
from data_prep.labels import material_name, optional_number, site_magmoms, vasp_stress
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.json_file import FrameParser, JsonFile
from data_prep.sources.payload import load_object, read_structure, required
from data_prep.sources.scan import open_brackets
from rung.config.preparation import SourceConfig
from rung.data.record import Reason, RecordError, StructureRecord

_SAMPLES: Final = "samples"
_SAMPLES_LIST: Final = re.compile(rb'"samples"\s*:\s*\[')
_STRUCTURE_KEY: Final = re.compile(rb'"structure"\s*:')


@dataclass(frozen=True)
class MatpesParser(FrameParser):
    """Reads records of MatPES.

    Attributes:
        functional: of records that do not state it; None refuses them.
    """

    functional: str | None

    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn one record into Rung's: Voigt stress in kbar to a tensor in GPa, moments from the sites."""
        raw = load_object(frame)
        structure = required(raw, "structure", dict)
        material_id, frame_id = _ids(raw)
        energy = optional_number(raw, "energy")
        arrays = read_structure(structure)
        record = StructureRecord(
            **arrays,
            energy=energy,
            forces=raw.get("forces"),
            stress=vasp_stress(raw.get("stress")),
            magmoms=site_magmoms(structure),
            source=self.source,
            material_id=material_id,
            frame_id=frame_id,
            functional=self._functional(raw),
        )
        return ParsedFrame(record, None if energy is None else "energy")

    def names(self, frame: RawFrame) -> tuple[str, str]:
        """The ids inside the record where they can be read, else its place in the file."""
        try:
            return _ids(load_object(frame))
        except RecordError:
            return super().names(frame)

    def _functional(self, raw: dict[str, Any]) -> str:
        stated = raw.get("functional")
        if isinstance(stated, str) and stated.strip():
            return functional_name(stated)
        if self.functional is None:
            raise RecordError(Reason.MISSING_KEY, "functional is missing; set source.functional if you know it")
        return self.functional


def open_matpes(config: SourceConfig, name: str) -> JsonFile:
    """Open MatPES files, each of any layout."""
    stated = None if config.functional is None else known_functional(config.functional)
    return JsonFile(config.paths, name, MatpesParser(name, stated), _layout)


def _ids(raw: dict[str, Any]) -> tuple[str, str]:
    """Material and frame: frames of one Materials Project entry share it, even where they come from its dynamics."""
    provenance = raw.get("provenance")
    original = provenance.get("original_mp_id") if isinstance(provenance, dict) else None
    own = raw.get("matpes_id")
    names = [material_name(name) for name in (original, own) if isinstance(name, str) and name.strip()]
    if not names:
        raise RecordError(Reason.MISSING_KEY, "neither provenance.original_mp_id nor matpes_id is there")
    return names[0], names[-1]


def _layout(head: bytes) -> tuple[int, str | None]:
    """Depth of the records and the key they stand under: one less than the depth of the first structure."""
    structure = _STRUCTURE_KEY.search(head)
    if structure is None:
        return 1, None
    depth = open_brackets(head[: structure.start()]) - 1
    # Beside the samples, such a file may describe itself in other objects of the same depth.
    return max(depth, 0), _SAMPLES if depth == 2 and _SAMPLES_LIST.search(head) else None
