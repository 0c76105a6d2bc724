"""Labels in another unit than the source's: what a set as a whole gives away, where one record could be an outlier."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

_IN_EV: Final[Mapping[str, float]] = {
    "Hartree": 27.211386,
    "Rydberg": 13.605693,
    "kJ/mol": 1 / 96.485332,
    "kcal/mol": 1 / 23.060548,
    "meV": 1e-3,
}
"""eV in one of each unit that energies come in (CODATA 2018)."""

_PER_ATOM: Final = "eV per atom"
_FEWEST: Final = 5  # records
_NEARLY_ALL: Final = 0.7
_CLEARLY_BETTER: Final = 2.0
_MOST: Final[Mapping[str, float]] = {"forces": 50.0, "stress": 200.0}  # eV/Å; GPa: pressures of the Earth's core
_ADVICE: Final[Mapping[str, str]] = {
    "forces": "forces are read in eV/Å: convert the file, or raise filters.force_floor if they are right",
    "stress": "an ASE source reads stress in eV/Å³ (GPa / 160.2, kbar / 1602), other sources as their program writes"
    " it: convert the file, or raise filters.stress_floor if the cells are under such a pressure",
}


class WrongUnitError(ValueError):
    """The labels of a set as a whole are in another unit than its source holds."""


def fitting_unit(
    energy: NDArray[np.float64], num_atoms: NDArray[np.integer], reference: NDArray[np.float64], near: float
) -> tuple[str, int] | None:
    """The unit in which nearly all energies would fit their references, and how many do; None if there is none.

    A few records of one element may lie anywhere, so some are needed, and each must fit far better than as it is given.

    Args:
        energy: (n,) total energies as given.
        num_atoms: (n,) in the cell.
        reference: (n,) reference energies of the compositions, eV/atom.
        near: what counts as fitting, eV/atom.
    """
    if len(energy) < _FEWEST:
        return None
    given = np.abs(energy / num_atoms - reference)
    factors = {_PER_ATOM: num_atoms.astype(np.float64), **_IN_EV}
    distances = {unit: np.abs(factor * energy / num_atoms - reference) for unit, factor in factors.items()}
    fits = {
        unit: int(((distance < near) & (given > _CLEARLY_BETTER * distance)).sum())
        for unit, distance in distances.items()
    }
    best = max(fits, key=lambda unit: (fits[unit], -float(np.median(distances[unit]))))
    return (best, fits[best]) if fits[best] > _NEARLY_ALL * len(energy) else None


def wrong_energies(unit: str, functional: str, fitting: int, total: int) -> WrongUnitError:
    """What to say where the energies of a set fit in another unit."""
    return WrongUnitError(
        f"{fitting:,} of {total:,} energies with the functional {functional} are far from its elemental references,"
        f" and would fit as {unit}; total energies of the cell in eV are read: convert the file, or set"
        " filters.functional_check to off if the energies have another zero on purpose"
    )


def check_size(label: str, values: NDArray[np.float64], floor: float) -> None:
    """Refuse a set most of whose forces or stresses are larger than matter bears.

    Args:
        label: forces or stress.
        values: (n,) the largest component of each record, eV/Å or GPa.
        floor: of the outliers, from the config; the limit is never below it.

    Raises:
        WrongUnitError: names the unit that is read.
    """
    limit = max(_MOST[label], floor)
    if len(values) < _FEWEST or np.median(values) <= limit:
        return
    unit = "GPa" if label == "stress" else "eV/Å"
    raise WrongUnitError(
        f"most records have absurd {label}: the largest components are {np.median(values):,.0f} {unit} in the median of"
        f" {len(values):,} records, once converted, and at most {limit:g} is believed; {_ADVICE[label]}"
    )
