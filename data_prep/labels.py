"""What a raw label means: names of materials, which energy, units and signs."""

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rung.config.preparation import EnergyChoice
from rung.data.record import Reason, RecordError
from rung.units import ase_stress_to_gpa, vasp_stress_to_gpa

_FUNCTIONAL_SUFFIX: Final = re.compile(r"[-_](pbe|gga|gga_u|r2scan|scan|pbesol)$", re.IGNORECASE)
_LETTER_ID: Final = re.compile(r"(?P<prefix>mp|mvc)-(?P<letters>[a-z]+)")

_VASP_ENERGIES: Final = {"free": "e_fr_energy", "zero_smearing": "e_0_energy", "without_entropy": "e_wo_entrp"}
"""VASP's own key of each energy that one may choose."""

_LARGEST_ENTROPY: Final = 0.5
"""eV/atom that smearing can change an energy by: ten times what the widest smearing in use does."""


def material_name(raw: str) -> str:
    """One name for one material, whatever the data set and the functional.

    The split and the pairs of functionals hang on this name. Materials Project ids come as numbers ("mp-149") and,
    since 2024, as the same numbers written in letters to the base 26 ("mp-ft"): both become "mp-149". A functional's
    name at the end ("...-PBE") is taken off.
    """
    name = _FUNCTIONAL_SUFFIX.sub("", raw.strip())
    letters = _LETTER_ID.fullmatch(name)
    if letters is None:
        return name
    number = 0
    for letter in letters["letters"]:
        number = 26 * number + ord(letter) - ord("a")
    return f"{letters['prefix']}-{number}"


def mptrj_energy(frame: Mapping[str, Any], num_atoms: int, choice: EnergyChoice) -> tuple[float | None, str | None]:
    """Total energy of an MPtrj frame in eV, and the key it came from; None twice where there is none.

    "corrected" is CHGNet's label, `energy_per_atom` (MP2020 corrections included). Sets without corrected energies, as
    MP-r2SCAN, have only `uncorrected_total_energy`, which is then used; the key says so and is counted.

    Raises:
        RecordError: an energy is no number.
    """
    keys = ["uncorrected_total_energy"]
    if choice == "corrected":
        keys = ["energy_per_atom", "corrected_total_energy", *keys]
    for key in keys:
        value = optional_number(frame, key)
        if value is not None:
            return (value * num_atoms if key == "energy_per_atom" else value), key
    return None, None


def vasp_energy(energies: Mapping[str, Any], num_atoms: int, choice: EnergyChoice) -> tuple[float, str]:
    """Total energy of one ionic step of VASP in eV, and its key.

    "free" belongs to the forces and is what MPtrj used. Versions of VASP before 6 write the other two in the wrong
    place: about 0 (the smearing's own energy) where the energy extrapolated to zero smearing should be, and that one
    where the energy without entropy should be. Both are refused there.

    Args:
        energies: `e_fr_energy`, `e_0_energy` and `e_wo_entrp` of the step, eV.
        num_atoms: in the cell.
        choice: which of them.

    Raises:
        RecordError: it is missing, misplaced, or no number.
    """
    free = optional_number(energies, _VASP_ENERGIES["free"])
    key = _VASP_ENERGIES.get(choice, _VASP_ENERGIES["free"])
    chosen = optional_number(energies, key)
    if chosen is None:
        raise RecordError(Reason.MISSING_KEY, f"{key} is missing; source.energy chose it")
    zero = optional_number(energies, _VASP_ENERGIES["zero_smearing"])
    misplaced = zero is not None and free is not None and abs(zero - free) > _LARGEST_ENTROPY * num_atoms
    if key != _VASP_ENERGIES["free"] and misplaced:
        raise RecordError(
            Reason.MALFORMED,
            f"e_0_energy is {zero} eV beside e_fr_energy {free} eV: old versions of VASP write it, and e_wo_entrp,"
            " wrongly; set source.energy to free",
        )
    return chosen, key


def entry_energy(entry: Mapping[str, Any], num_atoms: int, choice: EnergyChoice) -> tuple[float | None, str | None]:
    """Total energy of an entry (pymatgen's, or a row of a table) in eV, and the key it came from; None twice without.

    "corrected" adds the correction that the entry carries, or takes its `corrected_energy`.

    Raises:
        RecordError: the correction is missing, or an energy is no number.
    """
    energy = optional_number(entry, "energy")
    if energy is None:
        per_atom = optional_number(entry, "energy_per_atom")
        if per_atom is None or choice == "corrected":
            return None, None
        return per_atom * num_atoms, "energy_per_atom"
    if choice != "corrected":
        return energy, "energy"
    corrected = optional_number(entry, "corrected_energy")
    if corrected is not None:
        return corrected, "corrected_energy"
    correction = optional_number(entry, "correction")
    if correction is None:
        raise RecordError(Reason.MISSING_KEY, "neither correction nor corrected_energy is there; set source.energy")
    return energy + correction, "energy + correction"


def optional_number(frame: Mapping[str, Any], key: str) -> float | None:
    """The number under a key; None where the key is absent or null.

    Raises:
        RecordError: there is something else, or a number that no float holds.
    """
    value = frame.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(Reason.MALFORMED, f"{key} is {value!r:.60}, not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise RecordError(Reason.NOT_FINITE, f"{key} is a number of {len(str(value))} digits") from error


def vasp_stress(value: Any) -> NDArray[np.float32] | None:
    """A stress in kbar with VASP's sign, (3, 3) or Voigt (6,), as a tensor (3, 3) in GPa, positive under tension.

    Raises:
        RecordError: it has another shape, or is no array of numbers.
    """
    return None if value is None else vasp_stress_to_gpa(_stress(value)).astype(np.float32)


def ase_stress(value: Any) -> NDArray[np.float32] | None:
    """A stress in eV/Å³ with ASE's sign, (3, 3), (9,) or Voigt (6,), as a tensor (3, 3) in GPa, positive under tension.

    Raises:
        RecordError: it has another shape, or is no array of numbers.
    """
    return None if value is None else ase_stress_to_gpa(_stress(value)).astype(np.float32)


def _stress(value: Any) -> NDArray[np.float64]:
    try:
        raw = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError(Reason.MALFORMED, f"stress is not an array of numbers: {error}") from error
    if raw.shape == (9,):
        raw = raw.reshape(3, 3)
    if raw.shape not in ((3, 3), (6,)):
        raise RecordError(Reason.WRONG_SHAPE, f"stress has shape {raw.shape}; expected (3, 3) or Voigt (6,)")
    return raw


def site_magmoms(structure: Mapping[str, Any]) -> Any:
    """The moments (num_atoms,) kept as site properties, μB; None unless every site has one.

    Raises:
        RecordError: the properties of a site are no object.
    """
    moments = []
    for site in structure["sites"]:
        properties = site.get("properties") or {}
        if not isinstance(properties, dict):
            raise RecordError(Reason.MALFORMED, f"properties of a site are {properties!r:.60}, not an object")
        moments.append(properties.get("magmom"))
    return None if None in moments else moments
