"""vasprun.xml: cut as a stream, units and signs, what is missing, what is damaged; and the same as pymatgen reads."""

import numpy as np
import pytest
from pymatgen.io.vasp import Vasprun

from data_prep.sources.base import Rejection
from data_prep.sources.vasp import vasprun as reader
from rung.data.record import Reason
from tests.unit.data_prep.vasp_samples import FORCES, FRACTIONAL, LATTICE, STRESS, vasprun, vasprun_step


def test_labels_in_rungs_units(put, records):
    put("MnO/vasprun.xml", vasprun())
    first, second = records()
    assert (first.energy, second.energy) == (-20.0, -20.5)
    assert first.atomic_numbers.tolist() == [25, 8]
    np.testing.assert_allclose(first.lattice, LATTICE)
    np.testing.assert_allclose(first.frac_coords, FRACTIONAL)
    np.testing.assert_allclose(first.forces, FORCES, rtol=1e-6)
    np.testing.assert_allclose(first.stress, -0.1 * np.array(STRESS), rtol=1e-6)
    assert first.magmoms is None
    assert (first.material_id, first.frame_id, first.functional) == ("MnO", "MnO-1", "GGA")


def test_no_stress_is_no_zero_stress(put, records):
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0, stress=False)]))
    assert records()[0].stress is None


@pytest.mark.parametrize(
    ("energy", "value"), [(None, -20.0), ("free", -20.0), ("zero_smearing", -19.99), ("without_entropy", -19.98)]
)
def test_choice_of_energy(put, records, energy, value):
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0)]))
    assert records(energy=energy)[0].energy == pytest.approx(value, abs=1e-9)


def test_energies_that_old_versions_misplace(put, outcomes):
    """Trap 1: beside the right free energy, e_0_energy is about 0."""
    old = '<i name="e_wo_entrp">-19.99</i><i name="e_0_energy">-0.01</i>'
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0, others=old)]))
    assert outcomes()[0].record.energy == -20.0
    for choice in ("zero_smearing", "without_entropy"):
        (refused,) = outcomes(energy=choice)
        assert refused.reason == Reason.MALFORMED
        assert "set source.energy to free" in refused.detail


@pytest.mark.parametrize(("electronic", "converged"), [(59, True), (60, False)])
def test_convergence_is_fewer_electronic_steps_than_allowed(put, outcomes, electronic, converged):
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0, electronic)]))
    assert outcomes()[0].converged is converged


@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
def test_blocks_do_not_matter(put, records, monkeypatch, block):
    """Markers may lie across the ends of blocks."""
    put("MnO/vasprun.xml", vasprun())
    whole = records()
    monkeypatch.setattr(reader, "_BLOCK", block)
    for one, other in zip(records(), whole, strict=True):
        assert one.energy == other.energy
        np.testing.assert_array_equal(one.forces, other.forces)


def test_what_is_large_is_not_kept(put, monkeypatch, records):
    """Densities of states of any size go by: only a step's own text counts against the limit."""
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0).replace("<r>", "<r>1.0</r>\n" * 50_000 + "<r>")]))
    monkeypatch.setattr(reader, "LARGEST_STEP", 10_000)
    monkeypatch.setattr(reader, "_BLOCK", 4_096)
    assert records()[0].energy == -20.0


def test_a_run_that_stopped_keeps_its_whole_steps(put, outcomes):
    text = vasprun()
    put("MnO/vasprun.xml", text[: text.rfind('<varray name="forces">') + 40])
    good, cut = outcomes()
    assert good.record.energy == -20.0
    assert isinstance(cut, Rejection)
    assert (cut.reason, cut.material_id, cut.frame_id) == (Reason.MALFORMED, "MnO", "MnO-2")
    assert "ends inside ionic step 2" in cut.detail


@pytest.mark.parametrize(
    ("found", "written", "reason", "detail"),
    [
        ("<modeling>", "<other>", Reason.MALFORMED, "no vasprun.xml"),
        ("<energy>", "<no>", Reason.MALFORMED, "not XML"),
        ("-20.00000000", "**************", Reason.NOT_FINITE, "e_fr_energy"),
        ("0.10000000", "********", Reason.MALFORMED, "forces"),
        ("10.00000000", "NaN", Reason.NOT_FINITE, "stress"),
        ("4.00000000 0.00000000 0.00000000", "4.0 x 0.0", Reason.MALFORMED, "numbers"),
        ("<c>Mn</c><c>1</c>", "<c>Xy</c><c>1</c>", Reason.UNKNOWN_ELEMENT, "Xy"),
        ("atominfo", "nothing", Reason.MALFORMED, "does not list its atoms"),
        ("<incar>", "<incar><i>", Reason.MALFORMED, "incar is not XML"),
    ],
)
def test_damage_is_named(put, outcomes, found, written, reason, detail):
    put("MnO/vasprun.xml", vasprun([vasprun_step(-20.0)]).replace(found, written))
    (refused,) = outcomes()
    assert isinstance(refused, Rejection)
    assert refused.reason == reason
    assert detail in refused.detail


def test_a_run_without_steps(put, outcomes):
    put("MnO/vasprun.xml", vasprun(["\n"]))
    (refused,) = outcomes()
    assert "stopped before its first one" in refused.detail


@pytest.mark.parametrize(
    "run", ["matpes_static_flow/pbe_static", "KNbO3_ferroelectric/polarization_polar", "Si_mp_gga_relax/GGA_Relax_1"]
)
def test_same_as_pymatgen(shared_data, outcomes, run):
    folder = shared_data / "atomate2-vasp" / run
    theirs = Vasprun(folder / "vasprun.xml.gz", parse_dos=False, parse_eigen=False, parse_potcar_file=False)
    ours = outcomes(folder)
    assert len(ours) == len(theirs.ionic_steps)
    for parsed, step in zip(ours, theirs.ionic_steps, strict=True):
        assert parsed.record.energy == step["e_fr_energy"]
        assert parsed.converged is (len(step["electronic_steps"]) < theirs.parameters["NELM"])
        np.testing.assert_allclose(parsed.record.lattice, step["structure"].lattice.matrix, atol=1e-9)
        np.testing.assert_allclose(parsed.record.frac_coords, step["structure"].frac_coords % 1, atol=1e-9)
        np.testing.assert_allclose(parsed.record.forces, step["forces"], atol=1e-6)
        np.testing.assert_allclose(parsed.record.stress, -0.1 * np.array(step["stress"]), atol=1e-5)
