"""Energies of isolated atoms in every published layout."""

import gzip
import json

import numpy as np
import pytest

from rung.data.isolated import IsolatedAtomsError, read_isolated_atoms

RECORD = {"elements": ["O"], "nsites": 1, "energy": -1.5}
CRYSTAL = {"elements": ["O"], "nsites": 4, "energy": -9.0, "energy_atomic": -1.5}


@pytest.mark.parametrize(
    "content",
    [[RECORD], {"O": CRYSTAL}, {"element_types": ["O"], "refs": [-1.5]}, {"O": -1.5}, {"O": -1.5, "Bk": -9.0}],
    ids=["atoms", "crystals", "lists", "table", "beyond plutonium"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_layouts(tmp_path, content, pack):
    path = tmp_path / "atoms.json"
    path.write_bytes(pack(json.dumps(content).encode()))
    energies = read_isolated_atoms(path)
    assert energies[7] == -1.5
    assert np.isnan(energies).sum() == 93


def test_csv_needs_a_column_where_there_are_several(tmp_path):
    path = tmp_path / "atoms.csv"
    path.write_text("Element,PBE,r2SCAN\nO,-1.5,-1.6\nFe,,-7\n")
    assert read_isolated_atoms(path, "PBE")[7] == -1.5
    assert np.isnan(read_isolated_atoms(path, "PBE")[25])
    with pytest.raises(IsolatedAtomsError, match="PBE, r2SCAN"):
        read_isolated_atoms(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([RECORD, {**RECORD, "energy": -2.0}], "two energies of O"),
        ([{"elements": ["O"], "nsites": 2, "energy": -3.0}], "neither energy_atomic nor"),
        ([{"elements": ["O"], "nsites": 1}], "neither energy_atomic nor"),
        ({"Qq": 1.0}, "no element"),
        ([], "no energy of any element"),
        ({"Bk": -1.0}, "no energy of any element from H to Pu"),
        ([{"formula": "O", "energy": -1.5}], "no record of one element: {'formula'"),
        ([{"elements": ["O", "H"], "nsites": 2, "energy": -1.5}], "no record of one element"),
    ],
)
def test_files_that_say_nothing_clear_are_refused(tmp_path, content, message):
    path = tmp_path / "atoms.json"
    path.write_text(json.dumps(content))
    with pytest.raises(IsolatedAtomsError, match=message):
        read_isolated_atoms(path)


def test_published_table(shared_data):
    energies = read_isolated_atoms(shared_data / "isolated-atoms-mp" / "atomic_energies.csv", "r2SCAN")
    assert energies[0] == -1.12253494


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(IsolatedAtomsError, match=r"cannot be read: .*gone\.json"):
        read_isolated_atoms(tmp_path / "gone.json")


def test_the_only_column_of_a_csv_needs_no_name(tmp_path):
    path = tmp_path / "atoms.csv"
    path.write_text("Element,energy\nO,-1.5\n")
    assert read_isolated_atoms(path)[7] == -1.5


@pytest.mark.parametrize(("text", "message"), [("", "has the columns none"), ("El,E\nO,much\n", "column E: .*'much'")])
def test_a_csv_without_numbers_is_refused(tmp_path, text, message):
    path = tmp_path / "atoms.csv"
    path.write_text(text)
    with pytest.raises(IsolatedAtomsError, match=message):
        read_isolated_atoms(path)


def test_a_row_that_is_too_short_has_no_energy(tmp_path):
    path = tmp_path / "atoms.csv"
    path.write_text("Element,PBE,r2SCAN\nO,-1.5,-1.6\nFe,-7\n")
    energies = read_isolated_atoms(path, "r2SCAN")
    assert energies[7] == -1.6
    assert np.isnan(energies[25])


@pytest.mark.parametrize(
    "content",
    [
        b'{"O": -1.5',
        gzip.compress(b'{"O": -1.5}')[:-9],
        gzip.compress(b'{"O": -1.5}')[:-4] + b"xxxx",
        '{"O": -1.5, "é": 1}'.encode("latin-1"),
        b'{"element_types": ["O", "H"], "refs": [-1.5]}',
        b'{"element_types": ["O"], "refs": [null]}',
        b'[{"elements": ["O"], "nsites": 1, "energy": "much"}]',
    ],
    ids=["cut JSON", "cut gzip", "changed gzip", "encoding", "length", "null", "text"],
)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "atoms.json"
    path.write_bytes(content)
    with pytest.raises(IsolatedAtomsError, match=r"atoms\.json"):
        read_isolated_atoms(path)
