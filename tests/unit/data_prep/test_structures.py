"""Structures out of every kind of file, and what is refused."""

import gzip
import json

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.io import jsonio
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from data_prep.sources.base import RawFrame
from data_prep.sources.raw_file import BrokenFileError
from data_prep.structures import StructureFiles, read_frame
from rung.data.record import Reason, RecordError


@pytest.fixture
def atoms():
    cell = bulk("NaCl", "rocksalt", 5.64)
    cell.positions += [[0.0, 0.0, 0.0], [0.1, 0.02, -0.03]]
    return cell


@pytest.fixture
def structure(atoms):
    return AseAtomsAdaptor.get_structure(atoms)


def records(*paths):
    frames = list(StructureFiles(tuple(map(str, paths))).frames())
    assert [frame.position for frame in frames] == list(range(len(frames)))
    return [read_frame(frame) for frame in frames], ["#".join(frame.path) for frame in frames]


def same(record, atoms):
    expected = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T
    difference = record.frac_coords - expected
    assert record.atomic_numbers.tolist() == atoms.numbers.tolist()
    # A CIF holds lengths and angles, not the orientation.
    assert np.allclose(record.lattice @ record.lattice.T, atoms.cell.array @ atoms.cell.array.T, atol=1e-3)
    assert np.allclose(difference - np.round(difference), 0, atol=1e-4)
    assert record.energy is None


def written(folder, kind, atoms, structure):
    path = folder / f"cells.{kind}"
    match kind:
        case "extxyz" | "xyz" | "traj":
            ase.io.write(path, [atoms, atoms], format="extxyz" if kind == "xyz" else kind)
        case "extxyz.gz":
            ase.io.write(folder / "plain.xyz", [atoms, atoms], format="extxyz")
            path.write_bytes(gzip.compress((folder / "plain.xyz").read_bytes()))
        case "cif":
            text = str(CifWriter(structure, significant_figures=12))
            path.write_text(text + text)
        case "db":
            with ase.db.connect(path) as database:
                database.write(atoms)
                database.write(atoms)
        case "json":
            path.write_text(json.dumps([structure.as_dict(), {"structure": structure.as_dict()}]))
        case "jsonl":
            path.write_text(json.dumps(structure.as_dict()) + "\n" + json.dumps(structure.as_dict()) + "\n")
    return path


KINDS = ("extxyz", "xyz", "extxyz.gz", "traj", "db", "cif", "json", "jsonl")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_structures(kind, tmp_path, atoms, structure):
    found, names = records(written(tmp_path, kind, atoms, structure))
    assert len(found) == 2
    assert len(set(names)) == 2
    for record in found:
        same(record, atoms)


def test_json_of_structures_by_name_of_one_structure_and_of_ase(tmp_path, atoms, structure):
    (tmp_path / "a.json").write_text(
        json.dumps({"mp-1": structure.as_dict(), "mp-2": {"structure": structure.as_dict()}})
    )
    (tmp_path / "b.json").write_text(json.dumps(structure.as_dict(), indent=1))
    (tmp_path / "c.json").write_text(jsonio.encode(atoms))
    (tmp_path / "d.json").write_text(jsonio.encode([atoms]))
    ase.io.write(tmp_path / "e.json", atoms, format="json")
    (tmp_path / "f.jsonl").write_text(json.dumps({"id": 7, "structure": structure.as_dict()}) + "\n")
    found, names = records(tmp_path)
    assert names == ["a.json#mp-1", "a.json#mp-2", "b.json#0", "c.json#0", "d.json#0", "e.json#1", "f.jsonl#0"]
    for record in found:
        same(record, atoms)


def frame(value):
    return RawFrame(("f", "0"), 0, value.encode() if isinstance(value, str) else json.dumps(value).encode())


def disordered():
    cell = Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    return str(CifWriter(cell)).partition("data_")


BAD = {
    "disordered CIF": ("".join(disordered()[1:]), Reason.DISORDERED, "shared or partly empty"),
    "CIF without atoms": ("data_x\n_cell_length_a 3\n", Reason.MALFORMED, "cannot read the CIF"),
    "molecule": ("1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", Reason.MALFORMED, "must be periodic"),
    "not a structure": ({"energy": 1.0}, Reason.MISSING_KEY, "lattice"),
    "unknown element": (
        {
            "lattice": {"matrix": np.eye(3).tolist()},
            "sites": [{"species": [{"element": "Xx", "occu": 1}], "abc": [0, 0, 0]}],
        },
        Reason.UNKNOWN_ELEMENT,
        "Xx",
    ),
    "damaged array": (
        {"numbers": {"__ndarray__": [[2], "int64", [1]]}, "positions": [], "cell": [], "pbc": []},
        Reason.MALFORMED,
        "damaged",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_structure_is_refused_with_its_reason(name):
    text, reason, words = BAD[name]
    with pytest.raises(RecordError, match=words) as caught:
        read_frame(frame(text))
    assert caught.value.reason is reason


def test_a_file_that_is_no_cif_and_an_empty_folder_are_refused(tmp_path):
    (tmp_path / "a.cif").write_text("hello")
    with pytest.raises(BrokenFileError, match="no line begins with data_"):
        records(tmp_path / "a.cif")
    (tmp_path / "none").mkdir()
    with pytest.raises(BrokenFileError, match="names no file"):
        records(tmp_path / "none")
