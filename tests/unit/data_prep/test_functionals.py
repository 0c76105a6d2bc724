"""What VASP's tags say about functional, +U and kind of calculation."""

import pytest

from data_prep.functionals import known_functional, vasp_functional, vasp_hubbard_u, vasp_task_type

PBE_POTCARS = ("PAW_PBE Fe_pv 06Sep2000",)


@pytest.mark.parametrize(
    ("tags", "potcars", "functional"),
    [
        ({}, PBE_POTCARS, "GGA"),
        ({}, ("PAW Fe 03Mar1998",), "LDA"),
        ({}, ("PAW_GGA Fe 03Mar1998",), "PW91"),
        ({}, (), None),
        ({"GGA": "PE"}, (), "GGA"),
        ({"GGA": "--"}, PBE_POTCARS, "GGA"),
        ({"GGA": "Ps"}, PBE_POTCARS, "PBEsol"),
        ({"GGA": "RP"}, PBE_POTCARS, "RPBE"),
        ({"METAGGA": "R2SCA"}, (), "r2SCAN"),  # five letters of it
        ({"METAGGA": "R2scan", "GGA": "PE"}, PBE_POTCARS, "r2SCAN"),
        ({"METAGGA": "none"}, PBE_POTCARS, "GGA"),
        ({"METAGGA": "F"}, PBE_POTCARS, "GGA"),
        ({"METAGGA": "SCAN"}, (), "SCAN"),
        ({"LHFCALC": "T", "HFSCREEN": "0.2"}, PBE_POTCARS, "HSE06"),
        ({"LHFCALC": True, "HFSCREEN": 0.3}, PBE_POTCARS, "HSE03"),
        ({"LHFCALC": ".TRUE."}, PBE_POTCARS, "PBE0"),
        ({"LHFCALC": "T", "AEXX": "1.0"}, PBE_POTCARS, "HF"),
        ({"IVDW": "11"}, PBE_POTCARS, "GGA-D3"),
        ({"IVDW": 12, "METAGGA": "R2SCAN"}, (), "r2SCAN-D3BJ"),
        ({"METAGGA": "SCAN", "LUSE_VDW": "T"}, (), "SCAN-rVV10"),
        ({"GGA": "BO", "LUSE_VDW": "T"}, (), "optB88-vdW"),
        ({"LDAU": "T", "LDAUU": "0 3.9"}, PBE_POTCARS, "GGA+U"),
        ({"LDAU": "T", "LDAUU": "0 0"}, PBE_POTCARS, "GGA"),
        ({"METAGGA": "R2SCAN", "LDAU": True, "LDAUU": [2.0]}, (), "r2SCAN+U"),
    ],
)
def test_functional_of_the_tags(tags, potcars, functional):
    assert vasp_functional(tags, potcars) == functional


@pytest.mark.parametrize(
    ("tags", "applied"),
    [
        ({}, False),
        ({"LDAU": "F", "LDAUU": "3.9"}, False),
        ({"LDAU": ".TRUE.", "LDAUU": "3.9 0"}, True),
        ({"LDAU": "T", "LDAUU": "0", "LDAUJ": "1"}, True),
        ({"LDAU": "T"}, True),  # VASP's own default is a U
    ],
)
def test_hubbard_u(tags, applied):
    assert vasp_hubbard_u(tags) is applied


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({}, None),
        ({"NSW": "0"}, "static"),
        ({"NSW": 99, "IBRION": 2}, "structure optimization"),
        ({"NSW": 5000, "IBRION": 0}, "molecular dynamics"),
        ({"NSW": 1, "IBRION": "8"}, "dfpt"),
        ({"LEPSILON": "T"}, "dfpt"),
        ({"ICHARG": "11", "NSW": 0}, "nscf"),
        ({"NSW": "many"}, None),
        ({"NSW": float("inf"), "IBRION": 2}, "static"),
    ],
)
def test_kind_of_calculation(tags, kind):
    assert vasp_task_type(tags) == kind


def test_a_functional_that_somebody_typed():
    assert known_functional("pbe+u") == "GGA+U"
    with pytest.raises(ValueError, match=r"source\.functional is 'PBF'; known are GGA, .*r2SCAN"):
        known_functional("PBF")
