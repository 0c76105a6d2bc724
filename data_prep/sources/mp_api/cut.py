"""From a Materials Project document to its frames: one for each ionic step, with what it needs of the document."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from data_prep.functionals import VASP_TAGS
from data_prep.sources.base import RawFrame

_STEP_KEYS: Final = ("structure", "forces", "stress", "e_fr_energy", "e_0_energy", "e_wo_entrp")
_INPUT_KEYS: Final = ("hubbards", "is_hubbard", "potcar_spec")


def cut_document(frame: RawFrame) -> Iterator[RawFrame]:
    """Yield the frames of one document of a file.

    A task document has one for each ionic step of each calculation, an entry is one itself, and a table of entries
    (`{"structure": [...], "energy_per_atom": [...]}`) has one for each row. A document without any is passed on, so
    that it is refused with a reason and counted.
    """
    try:
        document = orjson.loads(frame.payload)
        write = orjson.dumps
    except orjson.JSONDecodeError:
        # Python's own parser takes NaN, which its writer then keeps: the parser of frames says which label it is.
        try:
            document = json.loads(frame.payload)
        except (ValueError, RecursionError):
            yield frame
            return
        write = _dumps
    if not isinstance(document, dict):
        yield frame
        return
    for number, (path, content) in enumerate(_frames(document)):
        # Frames of a document begin where it begins; the number tells them apart.
        yield RawFrame((*frame.path, *path), frame.position + number, write(content))


def _dumps(content: Any) -> bytes:
    return json.dumps(content).encode()


def _frames(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if isinstance(document.get("structure"), list):
        yield from _rows(document)
    elif "calcs_reversed" not in document:
        yield (), {"entry": document}
    else:
        yield from _steps(document)


def _rows(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The rows of a table given by columns, which have to be equally long."""
    num_rows = len(table["structure"])
    columns = {key: column for key, column in table.items() if isinstance(column, list) and len(column) == num_rows}
    for row in range(num_rows):
        yield (str(row),), {"entry": {key: column[row] for key, column in columns.items()}}


def _steps(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    about = {key: document.get(key) for key in ("task_id", "material_id", "task_type", "run_type")}
    calculations = document["calcs_reversed"]
    found = False
    for number, calculation in enumerate(calculations if isinstance(calculations, list) else []):
        output = _object(_object(calculation).get("output"))
        steps = output.get("ionic_steps")
        if not isinstance(steps, list) or not steps:
            continue
        of_calculation = about | _settings(document, _object(calculation))
        for position, step in enumerate(steps):
            found = True
            content = of_calculation | {"calculation": number, "step": position, **_of_step(_object(step))}
            if position == len(steps) - 1:
                content["magmoms"] = _final_magmoms(output)
            yield (str(number), str(position)), content
    if not found:
        yield (), about | {"missing": f"calcs_reversed has no ionic steps; keys: {', '.join(sorted(document))[:400]}"}


def _settings(document: Mapping[str, Any], calculation: Mapping[str, Any]) -> dict[str, Any]:
    """What the steps of a calculation have in common: functional, tags of VASP, +U, potentials."""
    inputs = [_object(document.get("input")), _object(calculation.get("input"))]
    # The tags that were asked for win over VASP's own report of its parameters, where some are cut short.
    tags = {
        tag: value
        for given in inputs
        for kind in ("parameters", "incar")
        for tag, value in _object(given.get(kind)).items()
        if tag in VASP_TAGS and value is not None
    }
    common = {key: next((given[key] for given in inputs if given.get(key) is not None), None) for key in _INPUT_KEYS}
    return common | {"tags": tags, "calculation_run_type": calculation.get("run_type")}


def _of_step(step: Mapping[str, Any]) -> dict[str, Any]:
    electronic = step.get("electronic_steps")
    number = len(electronic) if isinstance(electronic, list) else step.get("num_electronic_steps")
    return {key: step.get(key) for key in _STEP_KEYS} | {"num_electronic_steps": number}


def _final_magmoms(output: Mapping[str, Any]) -> list[Any] | None:
    """The moments that OUTCAR gives for the final step, in μB; else those of the sites of the final structure."""
    magnetization = _object(output.get("outcar")).get("magnetization")
    if isinstance(magnetization, list) and magnetization:
        return [_object(atom).get("tot") for atom in magnetization]
    sites = _object(output.get("structure")).get("sites")
    return (
        [_object(_object(site).get("properties")).get("magmom") for site in sites] if isinstance(sites, list) else None
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
