"""Task documents and entries of the Materials Project as records.

A task document holds calculations and their ionic steps at `calcs_reversed[c].output.ionic_steps[s]`; a frame is named
`task_id-c-s`, as in MPtrj. Entries (`ComputedStructureEntry`, rows with structure and energy) have only that.
A file is one document, a list of them, JSON lines, `{"data": [...]}` as the API answers, or `{any key: document}`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from data_prep.corrections import mp2020_correction
from data_prep.functionals import (
    DEFAULT_NELM,
    functional_name,
    known_functional,
    vasp_functional,
    vasp_task_type,
    with_u,
)
from data_prep.labels import entry_energy, material_name, optional_number, vasp_energy, vasp_stress
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.inputs import read_materials
from data_prep.sources.json_file import FrameParser, JsonFile
from data_prep.sources.mp_api.cut import cut_document
from data_prep.sources.payload import load_object, read_structure, required
from data_prep.sources.scan import open_brackets
from rung.config.preparation import EnergyChoice, SourceConfig
from rung.data.record import Reason, RecordError, StructureRecord

_DATA_LIST: Final = re.compile(rb'"data"\s*:\s*\[')
_DOCUMENT_KEY: Final = re.compile(rb'"(?:calcs_reversed|structure|task_id|entry_id|nsites)"\s*:')


@dataclass(frozen=True)
class DocumentParser(FrameParser):
    """Reads ionic steps and entries.

    Attributes:
        functional: of frames that do not state it; None refuses them.
        energy: which energy is the label.
        materials: material id of each task id that the documents themselves do not assign.
    """

    functional: str | None
    energy: EnergyChoice
    materials: Mapping[str, str] = field(default_factory=dict)

    def parse_frame(self, frame: RawFrame) -> ParsedFrame:
        """Turn one ionic step or entry into a record."""
        raw = load_object(frame)
        if "entry" in raw:
            return self._entry(frame, required(raw, "entry", dict))
        if "step" not in raw:
            raise RecordError(Reason.MISSING_KEY, str(raw.get("missing") or "it is no document with ionic steps"))
        return self._step(raw)

    def names(self, frame: RawFrame) -> tuple[str, str]:
        """The ids inside the frame where they can be read, else its place in the file."""
        try:
            raw = load_object(frame)
            return self._entry_ids(frame, raw["entry"]) if "entry" in raw else self._step_ids(raw)
        except (RecordError, KeyError, AttributeError):
            return super().names(frame)

    def _step(self, raw: dict[str, Any]) -> ParsedFrame:
        structure = read_structure(required(raw, "structure", dict))
        num_atoms = len(structure["atomic_numbers"])
        tags = _mapping(raw, "tags")
        hubbard_u = _hubbard_u(raw)
        functional = self._functional(raw, tags, hubbard_u)
        choice: EnergyChoice = "free" if self.energy in ("uncorrected", "mp2020") else self.energy
        energy, key = vasp_energy(raw, num_atoms, choice)
        if self.energy == "mp2020":
            energy += mp2020_correction(structure, functional, _hubbards(raw), _potcars(raw))
            key += " + MP2020"
        material_id, frame_id = self._step_ids(raw)
        record = StructureRecord(
            **structure,
            energy=energy,
            forces=raw.get("forces"),
            stress=vasp_stress(raw.get("stress")),
            magmoms=_complete(raw.get("magmoms")),
            source=self.source,
            material_id=material_id,
            frame_id=frame_id,
            functional=functional,
        )
        return ParsedFrame(record, key, _converged(raw, tags), _task_type(raw, tags), hubbard_u)

    def _entry(self, frame: RawFrame, entry: dict[str, Any]) -> ParsedFrame:
        structure = read_structure(required(entry, "structure", dict))
        if self.energy in ("free", "zero_smearing", "without_entropy"):
            raise RecordError(
                Reason.MISSING_KEY, f"an entry has no {self.energy} energy: set source.energy to uncorrected"
            )
        choice: EnergyChoice = "uncorrected" if self.energy == "mp2020" else self.energy
        energy, key = entry_energy(entry, len(structure["atomic_numbers"]), choice)
        parameters = _mapping(entry, "parameters")
        run_type = _enumerated(parameters.get("run_type")) or _enumerated(_mapping(entry, "data").get("run_type"))
        hubbard_u = _hubbard_u(parameters)
        functional = self._functional({"run_type": run_type}, {}, hubbard_u)
        if self.energy == "mp2020" and energy is not None:
            energy += mp2020_correction(structure, functional, _hubbards(parameters), _potcars(parameters))
            key = f"{key} + MP2020"
        material_id, frame_id = self._entry_ids(frame, entry)
        record = StructureRecord(
            **structure,
            energy=energy,
            source=self.source,
            material_id=material_id,
            frame_id=frame_id,
            functional=functional,
        )
        return ParsedFrame(record, key, hubbard_u=hubbard_u)

    def _functional(self, raw: Mapping[str, Any], tags: Mapping[str, Any], hubbard_u: bool | None) -> str:
        """The run type that the Materials Project found, else what the tags ask for, with +U as its table of U says."""
        stated = _enumerated(raw.get("calculation_run_type")) or _enumerated(raw.get("run_type"))
        name = functional_name(stated) if stated else vasp_functional(tags) or self.functional
        if name is None:
            raise RecordError(Reason.MISSING_KEY, "run_type is missing; set source.functional if you know it")
        return name if hubbard_u is None else with_u(name, applied=hubbard_u)

    def _step_ids(self, raw: Mapping[str, Any]) -> tuple[str, str]:
        task = raw.get("task_id")
        if not isinstance(task, str) or not task.strip():
            raise RecordError(Reason.MISSING_KEY, "task_id is missing")
        material = self.materials.get(task) or raw.get("material_id") or task
        return material_name(str(material)), f"{task}-{raw.get('calculation')}-{raw.get('step')}"

    def _entry_ids(self, frame: RawFrame, entry: Mapping[str, Any]) -> tuple[str, str]:
        data = _mapping(entry, "data")
        own = [data.get("task_id"), entry.get("task_id"), entry.get("entry_id"), entry.get("material_id")]
        named = [name for name in own if isinstance(name, str) and name.strip()]
        frame_id = named[0] if named else "-".join(frame.path)
        mapped = self.materials.get(frame_id)
        owners = [mapped, data.get("material_id"), entry.get("material_id"), entry.get("entry_id"), frame.path[0]]
        material = next(name for name in owners if isinstance(name, str) and name.strip())
        return material_name(material), frame_id


def open_documents(config: SourceConfig, name: str) -> JsonFile:
    """Open files of task documents or entries."""
    return JsonFile(config.paths, name, document_parser(config, name), _layout, cut_document)


def document_parser(config: SourceConfig, name: str) -> DocumentParser:
    """What reads the documents, from files or from the API."""
    stated = None if config.functional is None else known_functional(config.functional)
    return DocumentParser(name, stated, config.energy_choice, read_materials(config.materials))


def _layout(head: bytes) -> tuple[int, str | None]:
    """Depth of the documents and the key they stand under."""
    listed = _DATA_LIST.search(head)
    if listed is not None and open_brackets(head[: listed.start()]) == 1:
        return 2, "data"
    key = _DOCUMENT_KEY.search(head)
    return max(open_brackets(head[: key.start()]) - 1, 0) if key else 1, None


def _mapping(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecordError(Reason.MALFORMED, f"{key} is {value!r:.60}, not an object")
    return value


def _enumerated(value: Any) -> str | None:
    """A text, or the value of an enumeration that was written as an object."""
    if isinstance(value, dict):
        value = value.get("value")
    return value if isinstance(value, str) and value.strip() else None


def _hubbard_u(raw: Mapping[str, Any]) -> bool | None:
    """Whether any U is not zero; LDAUU is not asked, as it follows the blocks of POTCAR, which may be repeated."""
    values = raw.get("hubbards")
    if isinstance(values, dict) and values:
        return any(isinstance(value, int | float) and value for value in values.values())
    stated = raw.get("is_hubbard")
    return stated if isinstance(stated, bool) else None


def _hubbards(raw: Mapping[str, Any]) -> dict[str, float]:
    return {
        element: number
        for element in _mapping(raw, "hubbards")
        if (number := optional_number(raw["hubbards"], element))
    }


def _potcars(raw: Mapping[str, Any]) -> list[str]:
    """Titles of the potentials, repeated blocks included."""
    specs = raw.get("potcar_spec")
    titles = [spec.get("titel") for spec in specs if isinstance(spec, dict)] if isinstance(specs, list) else []
    return [title for title in titles if isinstance(title, str) and len(title.split()) > 1]


def _converged(raw: Mapping[str, Any], tags: Mapping[str, Any]) -> bool | None:
    """As many electronic steps as VASP was allowed to make are a sign that it gave up."""
    steps, most = optional_number(raw, "num_electronic_steps"), tags.get("NELM", DEFAULT_NELM)
    if steps is None or not tags or not isinstance(most, int | float):
        return None
    return steps < most


def _task_type(raw: Mapping[str, Any], tags: Mapping[str, Any]) -> str | None:
    stated = _enumerated(raw.get("task_type"))
    return stated.lower() if stated else vasp_task_type(tags)


def _complete(magmoms: Any) -> Any:
    """Moments, if every atom has one."""
    return None if not isinstance(magmoms, list) or None in magmoms else magmoms
