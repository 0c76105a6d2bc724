"""MPtrj and sets in its layout (MP-r2SCAN): one JSON object `{material id: {frame id: frame}}`, plain or gzip.

MPtrj: Deng et al., Nat. Mach. Intell. 5, 1031 (2023). MP-r2SCAN: Huang et al., arXiv 2504.05565.

The file does not say whether a frame was calculated with GGA or with GGA+U; Materials Project chose by chemistry.
Every frame is recorded as the functional of the config, GGA unless it says otherwise.
"""

from dataclasses import dataclass

from data_prep.functionals import known_functional
from data_prep.labels import material_name, mptrj_energy, vasp_stress
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.json_file import FrameParser, JsonFile
from data_prep.sources.payload import load_object, read_structure, required
from rung.config.preparation import EnergyChoice, SourceConfig
from rung.data.record import Reason, RecordError, StructureRecord


@dataclass(frozen=True)
class MptrjParser(FrameParser):
    """Reads frames of MPtrj.

    Attributes:
        functional: of every frame.
        energy: which energy is the label.
    """

    functional: str
    energy: EnergyChoice

    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn one frame into a record: stress from kbar to GPa, moments without sign, absent labels absent."""
        if len(frame.path) != 2:
            raise RecordError(Reason.MALFORMED, f"found {frame.payload[:40]!r} where a material's frames are expected")
        raw = load_object(frame)
        structure = read_structure(required(raw, "structure", dict))
        energy, energy_key = mptrj_energy(raw, len(structure["atomic_numbers"]), self.energy)
        material_id, frame_id = self.names(frame)
        record = StructureRecord(
            **structure,
            energy=energy,
            forces=raw.get("force"),
            stress=vasp_stress(raw.get("stress")),
            magmoms=raw.get("magmom"),
            source=self.source,
            material_id=material_id,
            frame_id=frame_id,
            functional=self.functional,
        )
        return ParsedFrame(record, energy_key)

    def names(self, frame: RawFrame) -> tuple[str, str]:
        """Both ids are keys of the file."""
        return material_name(frame.path[0]), frame.path[-1] if len(frame.path) == 2 else ""


def open_mptrj(config: SourceConfig, name: str) -> JsonFile:
    """Open files in MPtrj's layout."""
    parser = MptrjParser(name, known_functional(config.functional or "GGA"), config.energy_choice)
    return JsonFile(config.paths, name, parser, lambda _head: (2, None))
