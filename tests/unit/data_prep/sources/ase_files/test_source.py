"""Files that ASE reads: labels, ASE's unit and sign of stress, its Voigt order, keys by other names, what is absent."""

import gzip

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from data_prep.sources.ase_files.source import open_ase
from data_prep.sources.base import ParsedFrame, Rejection
from data_prep.sources.raw_file import BrokenFileError
from rung.config.preparation import SourceConfig
from rung.data.record import Reason
from rung.units import EV_PER_CUBIC_ANGSTROM_IN_GPA
from tests.unit.data_prep.reading import read_all

LABELS = {
    "energy": -8.0,
    "free_energy": -8.1,
    "forces": np.array([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]),
    "stress": np.array([0.01, 0.02, 0.03, 0.004, 0.005, 0.006]),
    "magmoms": np.array([-1.5, 0.5]),
}
TENSOR = EV_PER_CUBIC_ANGSTROM_IN_GPA * np.array([[0.01, 0.006, 0.005], [0.006, 0.02, 0.004], [0.005, 0.004, 0.03]])


def crystal(info=None, edge=4.0, **labels) -> Atoms:
    """Rocksalt-like cell with labels in a calculator; `None` leaves a label out."""
    atoms = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[edge] * 3, pbc=True, info=info or {})
    found = {name: value for name, value in (LABELS | labels).items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


def write_db(path, frames, **keys):
    with ase.db.connect(path, type="db") as database:
        for atoms in frames:
            database.write(atoms, **keys)


@pytest.fixture
def save(tmp_path):
    """Write frames in the format of a name."""

    def make(frames, name="set.extxyz"):
        path = tmp_path / name
        if name.endswith(".db"):
            write_db(path, frames)
        else:
            ase.io.write(path, frames)
        return path

    return make


@pytest.fixture
def outcomes():
    def read(path, **settings):
        given = {"kind": "ase", "path": str(path), "functional": "PBE"} | settings
        return read_all(open_ase(SourceConfig.model_validate(given), "test"))

    return read


@pytest.fixture
def record(outcomes):
    def read(*args, **settings):
        (frame,) = outcomes(*args, **settings)
        assert isinstance(frame, ParsedFrame), frame
        return frame.record

    return read


@pytest.mark.parametrize("name", ["set.extxyz", "set.xyz", "set.db", "set.traj", "set.json"])
def test_all_labels_in_every_format(save, record, name):
    read = record(save([crystal()], name))
    assert read.atomic_numbers.tolist() == [11, 17]
    assert read.energy == -8.0
    np.testing.assert_allclose(read.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-8)
    np.testing.assert_allclose(read.forces, LABELS["forces"], atol=1e-7)
    np.testing.assert_allclose(read.stress, TENSOR, rtol=1e-6)
    assert read.magmoms.tolist() == [1.5, 0.5]
    assert (read.functional, read.material_id) == ("GGA", "NaCl")


def test_stress_in_voigt_order_under_a_name_of_its_own(save, record):
    read = record(save([crystal({"dft_stress": LABELS["stress"]}, stress=None)]), ase={"stress": "dft_stress"})
    np.testing.assert_allclose(read.stress, TENSOR, rtol=1e-6)


def test_sign_of_stress_by_strain(save, record):
    """dE/dV / 3 of a stretched spring: a cell under tension has positive stress in ASE and here."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    copper = bulk("Cu", a=3.9)  # the minimum is near 3.6
    copper.calc = EMT()
    copper.get_stress()
    read = record(save([copper], "cu.extxyz"))
    smaller, larger = (bulk("Cu", a=3.9 + step) for step in (-1e-3, 1e-3))
    smaller.calc, larger.calc = EMT(), EMT()
    slope = (larger.get_potential_energy() - smaller.get_potential_energy()) / (
        larger.get_volume() - smaller.get_volume()
    )
    assert np.trace(read.stress) / 3 == pytest.approx(EV_PER_CUBIC_ANGSTROM_IN_GPA * slope, rel=1e-4)
    assert slope > 0


@pytest.mark.parametrize("absent", [("stress",), ("forces",), ("magmoms",), ("stress", "forces", "magmoms")])
@pytest.mark.parametrize("name", ["set.extxyz", "set.db"])
def test_absent_labels_stay_absent(save, record, name, absent):
    read = record(save([crystal(**dict.fromkeys(absent))], name))
    for label in ("energy", "forces", "stress", "magmoms"):
        assert (getattr(read, label) is None) == (label in absent)


def test_initial_moments_are_no_label(save, record):
    atoms = crystal()
    atoms.set_initial_magnetic_moments([5.0, 5.0])
    atoms.calc = SinglePointCalculator(atoms, energy=-8.0)
    assert record(save([atoms], "set.traj")).magmoms is None


def test_free_energy_on_request(save, record):
    assert record(save([crystal()], "set.traj"), energy="free").energy == -8.1


def test_keys_by_other_names(save, record):
    info = {"dft_energy": -9.0, "id": "mp-ft", "xc": "R2SCAN", "config": "md_7"}
    atoms = crystal(info)
    atoms.arrays["dft_forces"] = 2 * LABELS["forces"]
    keys = {"energy": "dft_energy", "forces": "dft_forces", "material": "id", "functional": "xc", "frame": "config"}
    read = record(save([atoms]), ase=keys)
    assert read.energy == -9.0
    np.testing.assert_allclose(read.forces, 2 * LABELS["forces"], rtol=1e-6)
    assert (read.material_id, read.functional, read.frame_id) == ("mp-149", "r2SCAN", "md_7")


def test_key_value_pairs_and_data_of_a_database(record, tmp_path):
    path = tmp_path / "set.db"
    with ase.db.connect(path) as database:
        database.write(crystal(), dft_energy=-9.0, data={"dft_forces": (2 * LABELS["forces"]).tolist()})
    read = record(path, ase={"energy": "dft_energy", "forces": "dft_forces"})
    assert read.energy == -9.0
    np.testing.assert_allclose(read.forces, 2 * LABELS["forces"], rtol=1e-6)


def test_many_frames_compressed_in_a_folder(save, outcomes, tmp_path):
    frames = [crystal(edge=4 + 0.1 * number) for number in range(5)]
    text = save(frames, "a.extxyz").read_bytes()
    (tmp_path / "b.xyz.gz").write_bytes(gzip.compress(text))
    save(frames[:2], "c.db")
    found = outcomes(tmp_path)
    assert [frame.record.frame_id for frame in found] == [
        *(f"a.extxyz-{number}" for number in range(5)),
        *(f"b.xyz.gz-{number}" for number in range(5)),
        *(f"c.db-{number}" for number in (1, 2)),
    ]
    assert [round(frame.record.lattice[0, 0], 6) for frame in found[:5]] == [4.0, 4.1, 4.2, 4.3, 4.4]


@pytest.mark.parametrize("pbc", [False, [True, True, False]])
def test_molecules_and_slabs_are_refused(save, outcomes, pbc):
    atoms = crystal()
    atoms.pbc = pbc
    (refused,) = outcomes(save([atoms]))
    assert (refused.reason, "pbc" in refused.detail) == (Reason.MALFORMED, True)


def test_no_label_names_the_keys_that_are_there(save, outcomes):
    (refused,) = outcomes(save([Atoms("NaCl", cell=[4] * 3, pbc=True, positions=[[0] * 3, [2] * 3], info={"e": 1})]))
    assert refused.reason == Reason.NO_LABEL
    assert "its keys are e: see source.ase" in refused.detail


def test_functional_that_nobody_states(save, outcomes):
    (refused,) = outcomes(save([crystal()]), functional=None)
    assert refused.reason == Reason.MISSING_KEY


@pytest.mark.parametrize(
    ("found", "written", "reason"),
    [
        ("Properties=species:S:1", "Properties=species:S:9", Reason.MALFORMED),
        ("Na ", "Xy ", Reason.MALFORMED),
        ("energy=-8.0", "energy=low", Reason.MALFORMED),
        ("0.10000000", "nan", Reason.NOT_FINITE),
        ('Lattice="4.0 ', 'Lattice="0.0 ', Reason.MALFORMED),
    ],
)
def test_a_bad_frame_costs_itself_alone(save, outcomes, tmp_path, found, written, reason):
    text = save([crystal(), crystal(edge=4.1)]).read_text()
    assert found in text
    path = tmp_path / "bad.extxyz"
    path.write_text(text.replace(found, written, 1))
    bad, good = outcomes(path)
    assert isinstance(bad, Rejection)
    assert bad.reason == reason
    assert isinstance(good, ParsedFrame)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.extxyz", b"hello\nworld\n", r"frame 0: it begins with b'hello"),
        ("set.extxyz", b'2\nLattice="4 0 0 0 4 0 0 0 4"\nNa 0 0 0\n', "ends inside frame 0, which has 2 atoms"),
        ("set.extxyz", b"-3\n", "extended XYZ begins each frame with its number of atoms"),
        ("set.db", b"SQLite format 3\0" + b"\0" * 100, "no ASE database, or damaged"),
        ("set.cube", b"no such thing", "ASE"),
        ("set.zzz", b"no such thing", r"ASE cannot read .*set\.zzz as zzz"),
        ("set", b"no such thing", "ASE does not know the format of .*set: "),
        ("set.traj", b"- of Ulmnot really", "ASE cannot read|does not know"),
        ("set.xyz", b"\x80\x04\x95pickle", "Python pickle"),
    ],
)
def test_files_that_are_none(outcomes, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BrokenFileError, match=message):
        outcomes(path)


def test_a_database_of_something_else(outcomes, tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "set.db") as database:
        database.execute("create table systems (id integer)")
        database.execute("insert into systems values (1)")
    with pytest.raises(BrokenFileError, match="no ASE database"):
        outcomes(tmp_path / "set.db")


def test_a_database_is_never_written_to(outcomes, tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "set.db") as database:
        database.execute("create table cars (id integer)")
    before = (tmp_path / "set.db").read_bytes()
    with pytest.raises(BrokenFileError, match="no such table: systems"):
        outcomes(tmp_path / "set.db")
    assert (tmp_path / "set.db").read_bytes() == before


def test_a_packed_file_is_read_from_a_copy_that_does_not_stay(save, record, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    plain = save([crystal()], "set.traj")
    packed = plain.with_name("packed.traj.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert record(packed).energy == -8.0
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("form", ["bundletrajectory", "gpw"])
def test_formats_that_may_hold_pickles_are_never_read(outcomes, tmp_path, monkeypatch, form):
    monkeypatch.setattr("data_prep.sources.ase_files.cut.filetype", lambda path, read: form)
    monkeypatch.setattr(ase.io, "iread", lambda *_, **__: pytest.fail("it was read"))
    path = tmp_path / "set.traj"
    path.write_bytes(b"anything")
    with pytest.raises(BrokenFileError, match=f"{form}, which may hold Python pickles"):
        outcomes(path)
