"""What a raw label means: names of functionals, names of materials, which energy, units and signs."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rung.data.record import Reason, RecordError
from rung.units import vasp_stress_to_gpa

_FUNCTIONALS: Final = {
    "gga": "GGA",
    "pbe": "GGA",
    "gga+u": "GGA+U",
    "pbe+u": "GGA+U",
    "r2scan": "r2SCAN",
    "r2sca": "r2SCAN",
    "r2scan+u": "r2SCAN+U",
    "scan": "SCAN",
    "scan+u": "SCAN+U",
    "pbesol": "PBEsol",
    "pbesol+u": "PBEsol+U",
    "lda": "LDA",
}
"""Rung's name for each name that data sets use (in small letters, without blanks, dashes and superscripts)."""

_FUNCTIONAL_SUFFIX: Final = re.compile(r"[-_](pbe|gga|gga_u|r2scan|scan|pbesol)$", re.IGNORECASE)
_LETTER_ID: Final = re.compile(r"(?P<prefix>[a-z]+)-(?P<letters>[a-z]+)")

EnergyChoice = Literal["corrected", "uncorrected"]


def functional_name(raw: str) -> str:
    """Rung's name of a functional: PBE is GGA, R2SCAN is r2SCAN; an unknown name is kept as it is written."""
    written = raw.strip()
    key = re.sub(r"[\s_-]", "", written.lower().replace("²", "2").replace("_u", "+u"))
    return _FUNCTIONALS.get(key, written)


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
    """Total energy of an MPtrj frame in eV, and the key it came from.

    "corrected" is CHGNet's label, `energy_per_atom` (MP2020 corrections included). Sets without corrected energies, as
    MP-r2SCAN, have only `uncorrected_total_energy`, which is then used; the key says so and is counted.
    """
    keys = ["uncorrected_total_energy"]
    if choice == "corrected":
        keys = ["energy_per_atom", "corrected_total_energy", *keys]
    for key in keys:
        value = optional_number(frame, key)
        if value is not None:
            return (value * num_atoms if key == "energy_per_atom" else value), key
    return None, None


def optional_number(frame: Mapping[str, Any], key: str) -> float | None:
    """The number under a key; None where the key is absent or null."""
    value = frame.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(Reason.MALFORMED, f"{key} is {value!r:.60}, not a number")
    return float(value)


def vasp_stress(value: Any) -> NDArray[np.float32] | None:
    """A stress in kbar with VASP's sign, (3, 3) or Voigt (6,), as a tensor in GPa, positive under tension."""
    if value is None:
        return None
    try:
        raw = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RecordError(Reason.MALFORMED, f"stress is not an array of numbers: {error}") from error
    if raw.shape not in ((3, 3), (6,)):
        raise RecordError(Reason.WRONG_SHAPE, f"stress has shape {raw.shape}; expected (3, 3) or Voigt (6,)")
    return vasp_stress_to_gpa(raw).astype(np.float32)


def site_magmoms(structure: Mapping[str, Any]) -> Any:
    """The moments kept as site properties, one per atom in μB; None unless every site has one."""
    moments = []
    for site in structure["sites"]:
        properties = site.get("properties") or {}
        if not isinstance(properties, dict):
            raise RecordError(Reason.MALFORMED, f"properties of a site are {properties!r:.60}, not an object")
        moments.append(properties.get("magmom"))
    return None if None in moments else moments
