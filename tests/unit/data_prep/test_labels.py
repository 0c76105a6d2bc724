"""Names of functionals and materials, and what the real files write."""

import pytest

from data_prep.functionals import functional_name
from data_prep.labels import material_name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("PBE", "GGA"),
        ("GGA", "GGA"),
        (" pbe ", "GGA"),
        ("GGA+U", "GGA+U"),
        ("PBE+U", "GGA+U"),
        ("GGA_U", "GGA+U"),
        ("R2SCAN", "r2SCAN"),
        ("r2SCAN", "r2SCAN"),
        ("r²SCAN", "r2SCAN"),
        ("R2scan", "r2SCAN"),
        ("R2SCA", "r2SCAN"),
        ("r2-SCAN", "r2SCAN"),
        ("SCAN", "SCAN"),
        ("PBESol", "PBEsol"),
        ("HSE06", "HSE06"),
    ],
)
def test_functional_names(raw, name):
    assert functional_name(raw) == name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("mp-149", "mp-149"),
        ("mp-ft", "mp-149"),  # the same number in letters
        ("mp-aaaaft", "mp-149"),
        ("mp-bohi", "mp-27230"),
        ("mvc-16", "mvc-16"),
        ("matpes-20240214_999484_73", "matpes-20240214_999484_73"),
        ("matpes-20240214_999484_73-PBE", "matpes-20240214_999484_73"),
        ("matpes-20240214_999484_73_r2SCAN", "matpes-20240214_999484_73"),
        (" mp-13 ", "mp-13"),
        ("NaCl", "NaCl"),
    ],
)
def test_material_names(raw, name):
    assert material_name(raw) == name
