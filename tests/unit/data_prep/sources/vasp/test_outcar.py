"""OUTCAR: the same records as vasprun.xml, moments of the last step, and what is damaged."""

import numpy as np
import pytest

from data_prep.sources.base import Rejection
from data_prep.sources.vasp.outcar import read_incar
from rung.data.record import Reason
from tests.unit.data_prep.vasp_samples import moments_table, outcar, outcar_step, vasprun


def test_same_record_as_vasprun(put, records):
    """VASP's order xx yy zz xy yz zx, Cartesian positions, and energies come out as in vasprun.xml."""
    put("MnO/OUTCAR", outcar())
    put("MnO2/vasprun.xml", vasprun())
    *ours, first, second = records()
    for one, other in zip(ours, (first, second), strict=True):
        assert one.energy == other.energy
        for name in ("lattice", "frac_coords", "forces", "stress"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)


def test_moments_belong_to_the_last_step(put, records):
    put("MnO/OUTCAR", outcar(after=moments_table()))
    first, last = records()
    assert first.magmoms is None
    assert last.magmoms.tolist() == [1.5, 0.5]


def test_moments_with_a_direction_are_lengths(put, records):
    tables = "".join(moments_table(values, axis) for values, axis in (((3, 0), "x"), ((0, 1), "y"), ((4, 0), "z")))
    put("MnO/OUTCAR", outcar(after=tables))
    assert records()[-1].magmoms.tolist() == [5.0, 1.0]


def test_moments_for_vasprun(put, records):
    """vasprun.xml has none: the OUTCAR beside it gives them, if it is of the same run."""
    put("MnO/vasprun.xml", vasprun())
    put("MnO/OUTCAR", outcar(after=moments_table()))
    assert records()[-1].magmoms.tolist() == [1.5, 0.5]
    other = outcar([outcar_step(1, -30.0), outcar_step(2, -30.5)], after=moments_table())
    put("MnO/OUTCAR", other)
    assert records()[-1].magmoms is None


@pytest.mark.parametrize(("reached", "converged"), [(True, True), (False, False), (None, True)])
def test_convergence_is_what_vasp_says(put, outcomes, reached, converged):
    put("MnO/OUTCAR", outcar([outcar_step(1, -20.0, reached=reached)]))
    assert outcomes()[0].converged is converged


def test_no_stress_is_no_zero_stress(put, records):
    put("O/OUTCAR", outcar([outcar_step(1, -20.0, stress=False)]))
    assert records()[0].stress is None


def test_cut_in_the_middle(put, outcomes):
    text = outcar()
    put("MnO/OUTCAR", text[: text.rfind("TOTAL-FORCE") + 100])
    good, cut = outcomes()
    assert good.record.energy == -20.0
    assert isinstance(cut, Rejection)
    assert "ends inside ionic step 2" in cut.detail


@pytest.mark.parametrize(
    ("found", "written", "reason", "detail"),
    [
        (" vasp.6.3.0", " something", Reason.MALFORMED, "is no OUTCAR"),
        ("VRHFIN", "VRH", Reason.MALFORMED, "does not list its atoms"),
        ("direct lattice vectors", "lattice", Reason.MISSING_KEY, "no lattice"),
        ("-0.10000", "********", Reason.WRONG_SHAPE, "(1, 3); 2 atoms need (2, 3)"),
        ("-20.00000000 eV", "******** eV", Reason.MISSING_KEY, "no energy"),
    ],
)
def test_damage_is_named(put, outcomes, found, written, reason, detail):
    put("MnO/OUTCAR", outcar([outcar_step(1, -20.0)]).replace(found, written))
    (refused,) = outcomes()
    assert isinstance(refused, Rejection)
    assert refused.reason == reason
    assert detail in refused.detail


def test_columns_that_touch(put, records):
    put("MnO/OUTCAR", outcar([outcar_step(1, -20.0)]).replace("     -0.20000", "-1234.20000"))
    assert records()[0].forces[0].tolist() == pytest.approx([0.1, 0.0, -1234.2])


def test_incar_tags():
    text = "ENCUT = 520\nMETAGGA = R2scan ! comment\n # GGA = PE\nLDAU = T; LDAUU = 0 3.9\nNELM=200"
    assert read_incar(text) == {"METAGGA": "R2scan", "LDAU": "T", "LDAUU": "0 3.9", "NELM": "200"}


@pytest.mark.parametrize("run", ["matpes_static_flow/r2scan_static", "MgMn2O4_magnetic/relax_2_3_(afm)"])
def test_real_outcar_agrees_with_its_vasprun(shared_data, outcomes, run, tmp_path):
    """The two files of one real run, read each by itself."""
    folder = shared_data / "atomate2-vasp" / run
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "OUTCAR.gz").symlink_to(folder / "OUTCAR.gz")
    both, alone = outcomes(folder), outcomes(tmp_path / "only")
    assert len(both) == len(alone)
    for one, other in zip(both, alone, strict=True):
        assert one.record.functional == other.record.functional
        assert one.converged == other.converged
        assert one.record.energy == pytest.approx(other.record.energy, abs=1e-6)
        np.testing.assert_allclose(one.record.forces, other.record.forces, atol=2e-5)
        np.testing.assert_allclose(one.record.stress, other.record.stress, atol=2e-3)
        shift = one.record.frac_coords - other.record.frac_coords
        np.testing.assert_allclose(shift - np.round(shift), 0, atol=1e-5)
    assert both[-1].record.magmoms is not None
    np.testing.assert_array_equal(both[-1].record.magmoms, alone[-1].record.magmoms)
