"""The calculator: chgnet's numbers, and what people do with it: relaxations and dynamics."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.calculators.calculator import CalculatorSetupError
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from chgnet.model import CHGNetCalculator, StructOptimizer
from pymatgen.io.ase import AseAtomsAdaptor

from rung.config.sections import ModelConfig
from rung.inference.calculator import RungCalculator
from rung.model.weights import build, load, save_model
from tests.unit.conftest import SMALL_MODEL


@pytest.fixture(scope="module")
def calculator():
    return RungCalculator("0.3.0")


@pytest.fixture
def salt():
    atoms = bulk("NaCl", "rocksalt", 5.9)
    atoms.positions[1] += [0.15, -0.1, 0.05]
    return atoms


def test_the_numbers_are_those_of_chgnets_calculator(calculator, salt):
    theirs = salt.copy()
    salt.calc, theirs.calc = calculator, CHGNetCalculator(load("0.3.0"), use_device="cpu")
    assert salt.get_potential_energy() == pytest.approx(float(theirs.get_potential_energy()), abs=2e-5)
    assert np.allclose(salt.get_forces(), theirs.get_forces(), atol=2e-5)
    assert np.allclose(salt.get_stress(voigt=False), theirs.calc.results["stress"], atol=1e-6)
    assert np.allclose(salt.get_magnetic_moments(), theirs.get_magnetic_moments(), atol=1e-5)


def test_a_relaxation_of_cell_and_positions_ends_where_chgnets_own_does(calculator, salt):
    theirs = StructOptimizer(load("0.3.0"), use_device="cpu").relax(
        AseAtomsAdaptor.get_structure(salt), fmax=0.02, verbose=False
    )["final_structure"]
    salt.calc = calculator
    FIRE(FrechetCellFilter(salt), logfile=None).run(fmax=0.02, steps=300)
    assert np.abs(salt.get_forces()).max() < 0.02
    assert salt.get_volume() == pytest.approx(theirs.volume, rel=5e-3)


def test_dynamics_without_a_thermostat_keep_the_energy(calculator):
    atoms = bulk("NaCl", "rocksalt", 5.7, cubic=True)
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    energies = []
    dynamics = VelocityVerlet(atoms, timestep=1 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy() / len(atoms)))
    dynamics.run(40)
    assert np.ptp(energies) < 1e-3


def test_an_exported_file_is_loaded_by_both(tmp_path, salt):
    torch.manual_seed(0)
    path = save_model(build(ModelConfig.model_validate(SMALL_MODEL)), tmp_path / "m.pth.tar", {})
    theirs = salt.copy()
    salt.calc, theirs.calc = RungCalculator(path), CHGNetCalculator.from_file(str(path), use_device="cpu")
    assert salt.get_potential_energy() == pytest.approx(float(theirs.get_potential_energy()), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pbc": False}, "periodic"),
        ({"cell": [30, 30, 30]}, "no neighbour"),
        ({"positions": [[0, 0, 0], [0.1, 0, 0]]}, "apart"),
    ],
)
def test_cells_that_cannot_be_computed_are_refused_with_what_to_change(calculator, change, words):
    atoms = bulk("NaCl", "rocksalt", 5.7)
    if "cell" in change:
        atoms.positions[1] = [15, 15, 15]
    for name, value in change.items():
        setattr(atoms, name, value)
    atoms.calc = calculator
    with pytest.raises(CalculatorSetupError, match=words):
        atoms.get_potential_energy()
