"""Units and signs: the only place where they are converted.

Rung's own units are eV, Å, GPa and μB. Lattice vectors are rows. Stress is the derivative of the energy by
strain divided by the volume, so a cell under tension has positive stress, as in CHGNet.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

EV_PER_CUBIC_ANGSTROM_IN_GPA: Final = 160.21766208
"""GPa in one eV/Å³ (CODATA 2014); the value that upstream CHGNet uses, so that predictions agree to the last digit."""

KBAR_IN_GPA: Final = 0.1

_VOIGT_INDEX: Final = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
"""Position of each tensor component in the Voigt order xx, yy, zz, yz, xz, xy."""


def voigt_to_tensor(stress: ArrayLike) -> NDArray[np.float64]:
    """Spread six Voigt components (xx, yy, zz, yz, xz, xy) over a symmetric (3, 3) tensor, unit unchanged.

    Raises:
        ValueError: another shape than (6,).
    """
    voigt = np.asarray(stress, dtype=np.float64)
    if voigt.shape != (6,):
        raise ValueError(f"a Voigt stress has 6 components; found shape {voigt.shape}")
    return voigt[_VOIGT_INDEX]


def stress_tensor(stress: ArrayLike) -> NDArray[np.float64]:
    """Return a stress given as (3, 3) or as Voigt (6,) as a (3, 3) tensor, unit unchanged.

    Raises:
        ValueError: neither shape.
    """
    values = np.asarray(stress, dtype=np.float64)
    if values.shape == (3, 3):
        return values
    if values.shape == (6,):
        return voigt_to_tensor(values)
    raise ValueError(f"a stress is a 3 x 3 tensor or 6 Voigt components; found shape {values.shape}")


def vasp_stress_to_gpa(stress: ArrayLike) -> NDArray[np.float64]:
    """Convert VASP's stress (kbar, positive under compression) to a tensor (3, 3) in GPa, positive under tension.

    Args:
        stress: (3, 3), or (6,) in the order of `voigt_to_tensor`; VASP itself prints xx, yy, zz, xy, yz, zx.

    Raises:
        ValueError: neither shape.
    """
    return -KBAR_IN_GPA * stress_tensor(stress)


def ase_stress_to_gpa(stress: ArrayLike) -> NDArray[np.float64]:
    """Convert ASE's stress, (3, 3) or Voigt (6,) in eV/Å³, to a tensor (3, 3) in GPa; both positive under tension.

    Raises:
        ValueError: neither shape.
    """
    return EV_PER_CUBIC_ANGSTROM_IN_GPA * stress_tensor(stress)


def gpa_to_ase_stress(stress: ArrayLike) -> NDArray[np.float64]:
    """Convert a stress tensor (3, 3) in GPa to ASE's Voigt components (6,) in eV/Å³; both positive under tension."""
    tensor = stress_tensor(stress) / EV_PER_CUBIC_ANGSTROM_IN_GPA
    return tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
