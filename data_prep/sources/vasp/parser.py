"""From one ionic step of a VASP run to a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_prep.corrections import mp2020_correction
from data_prep.functionals import DEFAULT_NELM, vasp_functional, vasp_hubbard_u, vasp_task_type
from data_prep.labels import material_name, vasp_energy, vasp_stress
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.json_file import FrameParser
from data_prep.sources.payload import atomic_numbers
from data_prep.sources.vasp.outcar import read_moments, read_outcar_step
from data_prep.sources.vasp.run import Settings, StepFrame
from data_prep.sources.vasp.vasprun import read_vasprun_step
from rung.config.preparation import EnergyChoice
from rung.data.record import Reason, RecordError, StructureRecord

_SAME_ENERGY: Final = 1e-5  # eV between the two files of one step


@dataclass(frozen=True)
class VaspParser(FrameParser):
    """Reads ionic steps.

    Attributes:
        functional: of runs whose tags and potentials do not say; None refuses them.
        energy: which energy is the label.
    """

    functional: str | None
    energy: EnergyChoice

    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn one ionic step into a record."""
        cut = StepFrame.load(frame)
        settings = cut.step.settings
        if settings is None:
            raise RecordError(Reason.MISSING_KEY, "the settings of the run are missing")
        read = (read_vasprun_step if cut.form == "vasprun" else read_outcar_step)(cut.step.text)
        functional = vasp_functional(settings.tags, settings.potcars) or self.functional
        if functional is None:
            raise RecordError(
                Reason.MISSING_KEY, "neither tags nor potentials tell the functional; set source.functional"
            )
        structure = _structure(read, settings)
        choice: EnergyChoice = "free" if self.energy == "mp2020" else self.energy
        energy, key = vasp_energy(read["energies"], len(settings.symbols), choice)
        if self.energy == "mp2020":
            energy += mp2020_correction(structure, functional, settings.hubbards, settings.potcars)
            key += " + MP2020"
        material_id, frame_id = self.names(frame)
        record = StructureRecord(
            **structure,
            energy=energy,
            forces=read["forces"],
            stress=vasp_stress(read["stress"]),
            magmoms=_moments(cut, read["energies"].get("e_fr_energy")),
            source=self.source,
            material_id=material_id,
            frame_id=frame_id,
            functional=functional,
        )
        tags = settings.tags
        return ParsedFrame(record, key, _converged(read, tags), vasp_task_type(tags), vasp_hubbard_u(tags))

    def names(self, frame: RawFrame) -> tuple[str, str]:
        """Material, and the run's place with the number of the step."""
        material, run, number = (*frame.path, "", "")[:3]
        return material_name(material), f"{run}-{number}"


def _structure(read: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    lattice = read["lattice"]
    if lattice is None:
        raise RecordError(Reason.MISSING_KEY, "the ionic step has no lattice")
    fractional = read.get("frac_coords")
    if fractional is None:
        fractional = _fractional(read.get("positions"), lattice)
    return {
        "atomic_numbers": atomic_numbers(settings.symbols),
        "lattice": _numbers(lattice),
        "frac_coords": fractional,
    }


def _fractional(positions: Any, lattice: Any) -> Any:
    try:
        return np.linalg.solve(_numbers(lattice).T, _numbers(positions).T).T
    except (ValueError, np.linalg.LinAlgError) as error:
        raise RecordError(Reason.MALFORMED, f"the step has no usable positions: {error}") from error


def _numbers(rows: Any) -> Any:
    try:
        return np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RecordError(Reason.MALFORMED, f"the step holds a row that is no numbers: {error}") from error


def _moments(cut: StepFrame, energy: float | None) -> NDArray[np.float32] | None:
    if cut.form == "outcar":
        return read_moments(cut.step.text)
    if not cut.outcar or energy is None:
        return None
    # An OUTCAR of another run in the same folder has no say.
    other = read_outcar_step(cut.outcar)["energies"]["e_fr_energy"]
    return read_moments(cut.outcar) if abs(other - energy) < _SAME_ENERGY else None


def _converged(read: Mapping[str, Any], tags: Mapping[str, Any]) -> bool | None:
    """What VASP says of it; else whether it made fewer electronic steps than it was allowed to."""
    if read["converged"] is not None:
        return read["converged"]
    steps = read["electronic_steps"]
    try:
        return None if not steps else steps < int(tags.get("NELM", DEFAULT_NELM))
    except (TypeError, ValueError):
        return None
