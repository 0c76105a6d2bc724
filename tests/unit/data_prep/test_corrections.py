"""MP2020 corrections are pymatgen's, and are refused where they do not apply."""

import numpy as np
import pytest
from pymatgen.core import Element

from data_prep.corrections import mp2020_correction
from rung.data.record import Reason, RecordError

TITLES = {"Mn": "PAW_PBE Mn_pv 02Aug2007", "O": "PAW_PBE O 08Apr2002", "Li": "PAW_PBE Li_sv 10Sep2004"}
TITLES |= {"Na": "PAW_PBE Na_pv 19Sep2006", "Cl": "PAW_PBE Cl 06Sep2000", "S": "PAW_PBE S 06Sep2000"}


def cell(symbols, coords=None, edge=4.4):
    numbers = np.array([Element(symbol).Z for symbol in symbols])
    rng = np.random.default_rng(0)
    coords = rng.random((len(symbols), 3)) if coords is None else coords
    return {"atomic_numbers": numbers, "lattice": edge * np.eye(3), "frac_coords": np.array(coords)}


def correction(symbols, functional="GGA", hubbards=None, **kwargs):
    potcars = [TITLES[symbol] for symbol in sorted(set(symbols))]
    return mp2020_correction(cell(symbols, **kwargs), functional, hubbards or {}, potcars)


@pytest.mark.parametrize(
    ("symbols", "functional", "hubbards", "value"),
    [
        (["Na", "Cl"], "GGA", {}, -0.614),  # chloride
        (["Mn", "O"], "GGA+U", {"Mn": 3.9, "O": 0.0}, -0.687 - 1.668),  # oxide, and Mn with U
        (["Mn", "Mn", "O", "O"], "GGA+U", {"Mn": 3.9}, 2 * (-0.687 - 1.668)),
        (["Na"], "GGA", {}, 0.0),
    ],
)
def test_values_of_the_scheme(symbols, functional, hubbards, value):
    """Wang et al. 2021, table 1 (eV per atom of the kind)."""
    assert correction(symbols, functional, hubbards) == pytest.approx(value, abs=1e-9)


def test_peroxides_are_not_oxides():
    coords = [[0, 0, 0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.25, 0.25, 0.83]]  # O-O 1.45 Å
    peroxide = correction(["Li", "Li", "O", "O"], coords=coords)
    assert peroxide == pytest.approx(2 * -0.465, abs=1e-9)


@pytest.mark.parametrize(
    ("functional", "hubbards", "potcars", "reason"),
    [
        ("r2SCAN", {}, list(TITLES.values()), Reason.WRONG_FUNCTIONAL),
        ("GGA", {}, [], Reason.MISSING_KEY),
        ("GGA+U", {}, list(TITLES.values()), Reason.MISSING_KEY),
        ("GGA+U", {"Mn": 2.5}, [TITLES["Mn"], TITLES["O"]], Reason.NO_LABEL),  # another U than the scheme's
        ("GGA", {}, [TITLES["Mn"], TITLES["O"]], Reason.NO_LABEL),  # an oxide of Mn needs U
        ("GGA+U", {"Mn": 3.9}, ["PAW_PBE Mn 06Sep2000", TITLES["O"]], Reason.NO_LABEL),  # another potential
    ],
)
def test_where_it_does_not_apply(functional, hubbards, potcars, reason):
    with pytest.raises(RecordError) as error:
        mp2020_correction(cell(["Mn", "O"]), functional, hubbards, potcars)
    assert error.value.reason == reason
