"""Folders of runs: which files go together, what a run and its material are called, and what one bad file costs."""

import json
import logging

import pytest

from data_prep.sources.base import ParsedFrame
from data_prep.sources.raw_file import BrokenFileError
from rung.data.record import Reason
from tests.unit.data_prep.vasp_samples import POTCARS, moments_table, outcar, vasprun, vasprun_step


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2"])
@pytest.mark.parametrize(("name", "text"), [("vasprun.xml", vasprun()), ("OUTCAR", outcar())])
def test_plain_gzip_and_bzip2(put, records, name, text, ending):
    put(f"MnO/relax/{name}{ending}", text)
    assert [(read.material_id, read.frame_id, read.energy) for read in records()] == [
        ("MnO", "MnO/relax-1", -20.0),
        ("MnO", "MnO/relax-2", -20.5),
    ]


def test_runs_of_one_folder_are_told_apart_by_their_endings(put, records):
    one = [vasprun_step(-20.0)]
    put("MnO/vasprun.xml.relax1.gz", vasprun(one))
    put("MnO/vasprun.relax2.xml", vasprun(one))
    put("MnO/OUTCAR.relax2", outcar(after=moments_table()))
    put("MnO/relax3.vasprun.xml.bz2", vasprun(one))
    assert [read.frame_id for read in records()] == ["MnO/relax1-1", "MnO/relax2-1", "MnO/relax3-1"]


def test_the_same_file_plain_and_compressed_is_one_run(put, records):
    put("MnO/vasprun.xml", vasprun())
    put("MnO/vasprun.xml.gz", vasprun())
    assert len(records()) == 2


def test_other_files_are_not_read(put, records):
    put("MnO/vasprun.xml", vasprun())
    for name in ("POSCAR", "WAVECAR", "MYOUTCARS.txt", "notes.xml"):
        put(f"MnO/{name}", "anything")
    put("MnO/.hidden/KPOINTS", "")
    assert len(records()) == 2


def test_material_is_the_first_folder(put, records, tmp_path):
    put("mp-ft/PBE/vasprun.xml", vasprun())
    put("mp-ft/r2SCAN/vasprun.xml", vasprun(incar={"METAGGA": "R2scan"}))
    read = records()
    assert {record.material_id for record in read} == {"mp-149"}
    assert {record.functional for record in read} == {"GGA", "r2SCAN"}
    assert {record.material_id for record in records(tmp_path / "runs" / "mp-ft")} == {"PBE", "r2SCAN"}
    assert {record.material_id for record in records(tmp_path / "runs" / "mp-ft" / "PBE")} == {"PBE"}


def test_materials_can_be_given(put, records, tmp_path):
    put("set1/launcher_7/vasprun.xml", vasprun())
    path = tmp_path / "materials.json"
    path.write_text(json.dumps({"set1/launcher_7": "mp-5", "set1": "mp-6"}))
    assert {record.material_id for record in records(materials=str(path))} == {"mp-5"}
    path.write_text("[1]")
    with pytest.raises(BrokenFileError, match="must be a JSON object"):
        records(materials=str(path))


def test_long_names_are_shortened_and_stay_apart(put, records):
    for ending in "ab":
        put(f"{'x' * 90}/{'y' * 90}{ending}/vasprun.xml", vasprun([vasprun_step(-20.0)]))
    names = [record.frame_id for record in records()]
    assert len(set(names)) == 2
    assert all(len(name) < 128 for name in names)


def test_links_in_a_circle(put, records, tmp_path):
    put("MnO/vasprun.xml", vasprun())
    (tmp_path / "runs" / "MnO" / "loop").symlink_to(tmp_path / "runs")
    assert len(records()) == 2


def test_a_bad_file_costs_itself_alone(put, outcomes):
    put("a/vasprun.xml", vasprun())
    put("b/vasprun.xml.gz", vasprun()).write_bytes(b"\x1f\x8b broken")
    put("c/OUTCAR", "")
    put("d/OUTCAR", outcar())
    found = outcomes()
    assert [isinstance(each, ParsedFrame) for each in found] == [True, True, False, False, True, True]
    assert [(each.reason, each.frame_id) for each in found[2:4]] == [
        (Reason.MALFORMED, "b-1"),
        (Reason.MALFORMED, "c-1"),
    ]
    assert "is empty" in found[3].detail


def test_a_bad_outcar_beside_a_vasprun_costs_its_moments(put, records, caplog):
    put("MnO/vasprun.xml", vasprun())
    put("MnO/OUTCAR", "no")
    with caplog.at_level(logging.WARNING):
        assert [record.magmoms for record in records()] == [None, None]
    assert "moments are not used" in caplog.text


def test_incar_fills_what_vasprun_leaves_out(put, records):
    put("MnO/vasprun.xml", vasprun())
    put("MnO/INCAR", "METAGGA = R2SCAN\n")
    assert records()[0].functional == "r2SCAN"


def test_functional_that_nobody_states(put, outcomes):
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0)], potcars=("Mn", "O")))
    (refused,) = outcomes()
    assert refused.reason == Reason.MISSING_KEY
    assert "set source.functional" in refused.detail
    assert outcomes(functional="PBE")[0].record.functional == "GGA"


def test_u_and_kind_of_calculation(put, outcomes):
    plus_u = {"LDAU": "T", "LDAUU": "3.9 0", "IBRION": "5"}
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0)], incar=plus_u))
    (read,) = outcomes()
    assert (read.record.functional, read.hubbard_u, read.task_type) == ("GGA+U", True, "dfpt")


def test_mp2020_correction(put, outcomes):
    """The correction of pymatgen for MnO with U on Mn, added to the free energy."""
    plus_u = {"LDAU": "T", "LDAUU": "3.9 0"}
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0)], incar=plus_u, potcars=POTCARS))
    (read,) = outcomes(energy="mp2020")
    assert read.energy_key == "e_fr_energy + MP2020"
    assert read.record.energy == pytest.approx(-20.0 - 0.687 - 1.668, abs=1e-6)


def test_nothing_to_read(put, outcomes, tmp_path):
    put("MnO/POSCAR", "")
    with pytest.raises(BrokenFileError, match=r"cannot find a vasprun\.xml or an OUTCAR"):
        outcomes()
    with pytest.raises(BrokenFileError, match="No such file"):
        outcomes(tmp_path / "absent")
