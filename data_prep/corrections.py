"""MP2020: the Materials Project's corrections of GGA and GGA+U energies, as pymatgen calculates them.

The scheme: Wang et al., Sci. Rep. 11, 15496 (2021).
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from pymatgen.core import Composition, Lattice, Structure
from pymatgen.core.structure_analyzer import oxide_type, sulfide_type
from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedEntry

from rung.data.record import Reason, RecordError

_PEROXIDE_RANGE: Final = 1.05  # by how much an O-O bond may be too long to count; what pymatgen's own scheme uses
_OXYGEN, _SULFUR = 8, 16


def mp2020_correction(
    structure: Mapping[str, Any], functional: str, hubbards: Mapping[str, Any], potcars: Sequence[Any]
) -> float:
    """The correction of a structure's total energy, eV.

    It holds for calculations with the Materials Project's own settings alone, so U and potentials have to be known.

    Args:
        structure: atomic_numbers (num_atoms,), lattice (3, 3) in Å, rows, and frac_coords (num_atoms, 3).
        functional: `GGA` or `GGA+U`.
        hubbards: U of each element, eV.
        potcars: titles of the potentials ("PAW_PBE Fe_pv 06Sep2000").

    Raises:
        RecordError: another functional, U or potentials that are not stated, or a calculation outside the scheme.
    """
    if functional not in ("GGA", "GGA+U"):
        raise RecordError(Reason.WRONG_FUNCTIONAL, f"MP2020 corrects GGA and GGA+U; this is {functional}")
    titles = tuple(sorted({str(title) for title in potcars if title}))
    if not titles:
        raise RecordError(Reason.MISSING_KEY, "the potentials are not stated, and MP2020 has to check them")
    if functional == "GGA+U" and not hubbards:
        raise RecordError(Reason.MISSING_KEY, "the values of U are not stated, and MP2020 has to check them")
    composition = Composition.from_dict(_counts(structure))
    kinds = _anion_kinds(structure)
    values = tuple(sorted((str(element), float(u)) for element, u in hubbards.items()))
    correction = _correction(composition.formula, functional, values, titles, kinds)
    if isinstance(correction, str):
        raise RecordError(Reason.NO_LABEL, f"MP2020 does not apply: {correction}")
    return correction


def _counts(structure: Mapping[str, Any]) -> dict[int, int]:
    numbers = structure["atomic_numbers"].tolist()
    return {number: numbers.count(number) for number in sorted(set(numbers))}


def _anion_kinds(structure: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What kind of oxide and of sulfide a structure is: corrections of peroxides differ."""
    numbers = set(structure["atomic_numbers"].tolist())
    if not numbers & {_OXYGEN, _SULFUR} or len(numbers) == 1:
        return None, None
    built = Structure(Lattice(structure["lattice"]), structure["atomic_numbers"], structure["frac_coords"])
    oxide = str(oxide_type(built, _PEROXIDE_RANGE)) if _OXYGEN in numbers else None
    # pymatgen finds no kind in sulfates, and takes an entry that does not say for a sulfide.
    return oxide, (sulfide_type(built) or "none") if _SULFUR in numbers else None


@cache
def _scheme() -> MaterialsProject2020Compatibility:
    return MaterialsProject2020Compatibility()


@lru_cache(maxsize=4096)
def _correction(
    formula: str,
    functional: str,
    hubbards: tuple[tuple[str, float], ...],
    potcars: tuple[str, ...],
    kinds: tuple[str | None, str | None],
) -> float | str:
    """The correction, or why there is none. Frames of one material share it."""
    entry = ComputedEntry(
        formula,
        0.0,
        parameters={"run_type": functional, "hubbards": dict(hubbards), "potcar_symbols": potcars},
        data={"oxide_type": kinds[0], "sulfide_type": kinds[1]},
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oxidation states that could not be guessed; the rule is MP's own
            adjustments = _scheme().get_adjustments(entry)
    except (CompatibilityError, ValueError, IndexError, KeyError) as error:
        return str(error)[:200]
    return sum(adjustment.value for adjustment in adjustments)
