"""Tables of isolated atoms are recognised, counted, and refused as training data."""

import pytest

from data_prep.sources.atoms import open_atoms
from data_prep.sources.raw_file import BrokenFileError
from rung.config.preparation import SourceConfig
from rung.data.record import Reason
from tests.unit.data_prep.reading import read_all


@pytest.fixture
def outcomes(write):
    def read(content, functional=None):
        path = str(write(content, "atoms.csv"))
        return read_all(open_atoms(SourceConfig(kind="atoms", path=path, functional=functional), "test"))

    return read


def test_columns_of_functionals(outcomes):
    found = outcomes("Element,PBE,r2SCAN\nH,-1.1,-1.2\nFe,-3.0,\n")
    read = [(each.record.material_id, each.record.functional, each.record.energy) for each in found[:3]]
    assert read == [("atom-H", "GGA", -1.1), ("atom-H", "r2SCAN", -1.2), ("atom-Fe", "GGA", -3.0)]
    assert (found[3].reason, found[3].frame_id) == (Reason.NO_LABEL, "Fe/r2SCAN")


def test_lists_of_matpes(outcomes):
    found = outcomes({"element_types": ["H", "Xy"], "refs": [-1.1, 2.0]}, functional="r2SCAN")
    assert (found[0].record.functional, found[0].record.energy) == ("r2SCAN", -1.1)
    assert found[1].reason == Reason.UNKNOWN_ELEMENT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nH,1\n", "is no table of atoms"),
        ("Element\nH\n", "is no table of atoms"),
        ("Element,PBE\nH,1,2\n", "line 2: 3 columns"),
        ('{"element_types": ["H"], "refs": []}', "equally long lists"),
        ('{"refs": [1]}', "equally long lists"),
        ("{", "equally long lists"),
    ],
)
def test_other_files(outcomes, text, message):
    with pytest.raises(BrokenFileError, match=message):
        outcomes(text)


def test_text_of_another_encoding(outcomes, tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("Element,PBE\nH,1 # Å\n".encode("latin-1"))
    source = open_atoms(SourceConfig(kind="atoms", path=str(path)), "test")
    with pytest.raises(BrokenFileError, match="not UTF-8"):
        list(source.frames())
    source.close()
