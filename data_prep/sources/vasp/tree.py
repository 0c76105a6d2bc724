"""Folders of VASP runs, at any depth: every vasprun.xml and OUTCAR, plain, gzip or bzip2, one record per ionic step.

A folder with a vasprun.xml is read from that; the OUTCAR beside it adds magnetic moments, which vasprun.xml lacks.
Without a vasprun.xml, OUTCAR gives all. Files of several runs in one folder are told apart by their endings
(vasprun.xml.relax1.gz goes with OUTCAR.relax1.gz).

The material, which the split goes by, is the first folder below source.path: relaxations and statics, and several
functionals, of one material belong in one such folder. source.materials can say otherwise for any folder.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data_prep.corrections import mp2020_correction
from data_prep.functionals import known_functional, vasp_functional, vasp_hubbard_u, vasp_task_type
from data_prep.labels import material_name, vasp_energy, vasp_stress
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.inputs import InputFiles, absolute, file_name, read_materials, walk
from data_prep.sources.json_file import FrameParser
from data_prep.sources.payload import atomic_numbers
from data_prep.sources.raw_file import BrokenFileError
from data_prep.sources.vasp.outcar import cut_outcar, read_moments, read_outcar_step
from data_prep.sources.vasp.run import FileFormat, Settings, Step, StepFrame
from data_prep.sources.vasp.vasprun import cut_vasprun, read_vasprun_step
from rung.config.preparation import EnergyChoice, SourceConfig
from rung.data.record import Reason, RecordError, StructureRecord

_CHUNK: Final = 32  # steps; a large one with many electronic steps has about 1 MB of text
_VASPRUN: Final = re.compile(
    r"^(?P<before>.*?)vasprun(?P<inside>[^/]*?)\.xml(?P<after>\..+?)?(\.(gz|bz2))?$", re.IGNORECASE
)
_OUTCAR: Final = re.compile(r"^(?P<before>.*?)OUTCAR(?P<inside>)(?P<after>[._-].+?)?(\.(gz|bz2))?$")
_LONGEST_NAME: Final = 110  # characters; the record's limit less the number of a step
_NELM: Final = 60  # VASP's own default
_SAME_ENERGY: Final = 1e-5  # eV between the two files of one step


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: its name, its material, and its files."""

    name: str
    material: str
    vasprun: str | None
    outcar: str | None


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


class VaspTree:
    """Streams the ionic steps of all runs below some folders; holds one step at a time.

    A file that cannot be read, or ends early, costs its own remaining steps: they are rejected, the others kept.

    Args:
        config: of the source.
        name: of the data set.
    """

    chunk = _CHUNK

    def __init__(self, config: SourceConfig, name: str) -> None:
        self.name = name
        stated = None if config.functional is None else known_functional(config.functional)
        self.parser = VaspParser(name, stated, config.energy_choice)
        sizes, self._runs = _find_runs(config.paths, read_materials(config.materials))
        if not self._runs:
            raise BrokenFileError(f"cannot find a vasprun.xml or an OUTCAR below source.path {', '.join(config.paths)}")
        self._files, self._moments = InputFiles(sizes), InputFiles(sizes)

    def frames(self) -> Iterator[RawFrame]:
        """Stream the steps, runs in the order of their places, and number them."""
        position = 0
        for run in self._runs:
            for cut in self._steps(run):
                path = (run.material, run.name, str(cut.step.number))
                yield RawFrame(path, position, cut.dump())
                position += 1

    def progress(self) -> tuple[int, int, str]:
        """Bytes of the files read, bytes of all, unit."""
        return self._files.progress()

    def facts(self) -> dict[str, Any]:
        """Hash and size of all files; reads the rest of them where a limit stopped early."""
        return self._files.facts() | {"runs": len(self._runs)}

    def close(self) -> None:
        """Close the files."""
        self._files.close()
        self._moments.close()

    def _steps(self, run: _Run) -> Iterator[StepFrame]:
        form: FileFormat = "vasprun" if run.vasprun else "outcar"
        number = 0
        beside = self._outcar_steps(run.outcar) if run.vasprun and run.outcar else iter(())
        try:
            file = self._files.open(run.vasprun or run.outcar or "")
            for step in cut_vasprun(file) if form == "vasprun" else cut_outcar(file):
                number = step.number
                yield StepFrame(form, step, next(beside, ""))
        except BrokenFileError as error:
            yield StepFrame(form, Step(number + 1, "", None, str(error)))

    def _outcar_steps(self, path: str) -> Iterator[str]:
        """Texts of the steps of an OUTCAR beside a vasprun.xml; one that cannot be read adds no moments."""
        try:
            for step in cut_outcar(self._moments.open(path)):
                yield "" if step.broken else step.text
        except BrokenFileError:
            return


def open_vasp(config: SourceConfig, name: str) -> VaspTree:
    """Open folders of VASP runs."""
    return VaspTree(config, name)


def _find_runs(roots: tuple[str, ...], materials: Mapping[str, str]) -> tuple[dict[str, int], list[_Run]]:
    """Sizes of the files, and the runs in the order of their places."""
    sizes: dict[str, int] = {}
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for root in roots:
        label = file_name(absolute(root)) if len(roots) > 1 else ""
        for path, relative, size in walk(root):
            folder, _, name = relative.rpartition("/")
            for kind, pattern in (("vasprun", _VASPRUN), ("outcar", _OUTCAR)):
                match = pattern.match(name)
                if match:
                    ending = f"{match['before']}{match['inside']}{match['after'] or ''}".strip("._-")
                    files = found.setdefault((label, folder, ending), {})
                    # The same file plain and compressed is one run.
                    if kind not in files:
                        files[kind] = path
                        sizes[path] = size
                    break
    named = file_name(absolute(roots[0])) if len(roots) == 1 else ""
    return sizes, [
        _run(place, files, materials, named) for place, files in sorted(found.items(), key=lambda item: item[0])
    ]


def _run(place: tuple[str, str, str], files: Mapping[str, str], materials: Mapping[str, str], root: str) -> _Run:
    label, folder, ending = place
    where = "/".join(part for part in (label, folder) if part)
    above = list(_with_parents(folder))
    mapped = next((materials[part] for part in chain(_with_parents(where), above) if part in materials), None)
    own = (folder or label or root).partition("/")[0]
    name = "/".join(part for part in (where or root, ending) if part)
    return _Run(_short(name), _short(mapped or own), files.get("vasprun"), files.get("outcar"))


def _with_parents(folder: str) -> Iterator[str]:
    """A folder and all that hold it, innermost first."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _short(name: str) -> str:
    """A name that a record can keep: a long one loses its middle, and has a hash of the whole instead."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = blake2b(name.encode(), digest_size=6).hexdigest()
    ends = name.encode()[:30].decode(errors="ignore"), name.encode()[-60:].decode(errors="ignore")
    return f"{ends[0]}~{digest}~{ends[1]}"


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
        return None if not steps else steps < int(tags.get("NELM", _NELM))
    except (TypeError, ValueError):
        return None
