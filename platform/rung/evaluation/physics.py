"""The physics gate: whether a model obeys what every potential must, tried on its very weights.

A wrong sign, a detached branch or a second division by the number of atoms trains without complaint and passes every
comparison with labels of the same fault. Here the predictions are compared with each other: forces and stress with
finite differences of the energy, and the energy with itself after what must not change it. All in double precision, so
that the limits are those of the formulas and not of rounding.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.progress import followed
from rung.data.batch import collate
from rung.data.graph import graph_record
from rung.data.record import StructureRecord
from rung.model.chgnet import Prediction, evaluate
from rung.model.support import cutoffs_of
from rung.units import EV_PER_CUBIC_ANGSTROM_IN_GPA

_STEP: Final = 1e-4
"""Displacement of atoms (Å) and strain of cells in finite differences."""


class PhysicsError(ValueError):
    """A model that breaks a law that every potential obeys."""


@dataclass(frozen=True)
class Check:
    """One law.

    Attributes:
        name: of the law.
        found: largest deviation found.
        limit: largest deviation allowed.
        unit: of both.
        scale: size of the quantity itself, in the same unit; tells whether there was anything to compare.
    """

    name: str
    found: float
    limit: float
    unit: str
    scale: float

    @property
    def holds(self) -> bool:
        """Whether the deviation is within the limit; one that is not a number is not."""
        return bool(self.found <= self.limit)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"holds": self.holds}


def check_physics(model: CHGNet) -> list[Check]:
    """Try every law on two small cells without symmetry.

    Args:
        model: any CHGNet that rung evaluates; not changed.

    Raises:
        UnsupportedModelError: it is another one.
    """
    probe = _Probe(model)
    cells = list(_cells())
    predictions = [probe.predict(cell) for cell in cells]
    checks = []
    with followed("physics gate", len(_LAWS), "law") as advance:
        for law in _LAWS:
            checks.append(law(probe, cells, predictions))
            advance(1)
    return checks


def require_physics(model: CHGNet, purpose: str) -> list[Check]:
    """Refuse a model that breaks a law.

    Args:
        model: the model.
        purpose: what it is refused for, such as "export".

    Raises:
        PhysicsError: names every law broken, with deviation and limit.
        UnsupportedModelError: rung does not evaluate its architecture.
    """
    checks = check_physics(model)
    broken = [f"{c.name}: {c.found:.3g} {c.unit} (limit {c.limit:.3g})" for c in checks if not c.holds]
    if broken:
        raise PhysicsError(
            f"{purpose} is refused, since the model breaks the laws of a potential: {'; '.join(broken)}. The weights or"
            " the code that evaluates them are at fault; more training does not mend it"
        )
    return checks


class _Probe:
    """Evaluates cells with a copy of the model in double precision."""

    def __init__(self, model: CHGNet) -> None:
        self._model = copy.deepcopy(model).to("cpu", torch.float64)
        self.cutoffs = cutoffs_of(model)

    def predict(self, *cells: StructureRecord) -> Prediction:
        """Energy (eV/atom), forces and stress of cells as one batch."""
        batch = collate([graph_record(cell, self.cutoffs) for cell in cells], torch.float64)
        return evaluate(self._model, batch, magmoms=False)

    def energies(self, cells: list[StructureRecord]) -> NDArray[np.float64]:
        """Total energies (n,), eV."""
        batch = collate([graph_record(cell, self.cutoffs) for cell in cells], torch.float64)
        found = evaluate(self._model, batch, forces=False, stress=False, magmoms=False).energy
        return found.numpy() * np.array([cell.num_atoms for cell in cells])


def _cells() -> Iterator[StructureRecord]:
    """An oxide and an alloy: strained and shaken, so that no symmetry hides an error."""
    rng = np.random.default_rng(20250407)
    kinds = (
        ([3, 27, 8, 8], [[0, 0, 0.5], [0, 0, 0], [0.33, 0.67, 0.2], [0.67, 0.33, 0.8]], [3.4, 3.4, 6.2]),
        ([11, 22, 17], [[0, 0, 0], [0.5, 0.5, 0.4], [0.1, 0.6, 0.85]], [4.2, 4.4, 4.6]),
    )
    for numbers, places, edges in kinds:
        lattice = np.diag(edges) @ (np.eye(3) + rng.normal(scale=0.04, size=(3, 3)))
        yield StructureRecord(
            atomic_numbers=np.array(numbers),
            lattice=lattice,
            frac_coords=np.array(places) + rng.normal(scale=0.02, size=(len(numbers), 3)),
            source="physics",
            material_id="physics",
            frame_id="physics",
            functional="none",
        )


def _forces(probe: _Probe, cells: list[StructureRecord], predictions: list[Prediction]) -> Check:
    worst = scale = 0.0
    for cell, prediction in zip(cells, predictions, strict=True):
        forces = _array(prediction.forces)
        moved = []
        for atom, axis, sign in _directions(cell.num_atoms):
            shift = np.zeros((cell.num_atoms, 3))
            shift[atom, axis] = sign * _STEP
            moved.append(replace(cell, frac_coords=cell.frac_coords + shift @ np.linalg.inv(cell.lattice)))
        energies = probe.energies(moved).reshape(-1, 2)
        expected = (-(energies[:, 0] - energies[:, 1]) / (2 * _STEP)).reshape(-1, 3)
        worst, scale = _larger(worst, forces - expected), _larger(scale, expected)
    return Check("forces are minus the gradient of the energy", worst, _relative(1e-5, scale, 1e-6), "eV/Å", scale)


def _stress(probe: _Probe, cells: list[StructureRecord], predictions: list[Prediction]) -> Check:
    worst = scale = 0.0
    for cell, prediction in zip(cells, predictions, strict=True):
        strained = []
        for row, axis, sign in _directions(3):
            strain = np.zeros((3, 3))
            strain[row, axis] = sign * _STEP
            strained.append(replace(cell, lattice=cell.lattice @ (np.eye(3) + strain)))
        energies = probe.energies(strained).reshape(-1, 2)
        volume = abs(np.linalg.det(cell.lattice))
        slopes = (energies[:, 0] - energies[:, 1]) / (2 * _STEP) / volume * EV_PER_CUBIC_ANGSTROM_IN_GPA
        expected = slopes.reshape(3, 3)
        worst = _larger(worst, _array(prediction.stress)[0] - expected)
        scale = _larger(scale, expected)
    return Check("stress is the derivative by strain", worst, _relative(1e-4, scale, 1e-6), "GPa", scale)


def _rotation(probe: _Probe, cells: list[StructureRecord], predictions: list[Prediction]) -> Check:
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    worst = scale = 0.0
    for cell, prediction in zip(cells, predictions, strict=True):
        turned = probe.predict(replace(cell, lattice=cell.lattice @ turn))
        forces = _array(prediction.forces)
        worst = _larger(worst, _array(turned.forces) - forces @ turn)
        worst = _larger(worst, _array(turned.energy) - _array(prediction.energy))
        stress = turn.T @ _array(prediction.stress)[0] @ turn
        worst = _larger(worst, (_array(turned.stress)[0] - stress) / EV_PER_CUBIC_ANGSTROM_IN_GPA)
        scale = _larger(scale, forces)
    return Check("rotation turns forces and stress, and keeps the energy", worst, 1e-6, "eV/atom, eV/Å, eV/Å³", scale)


def _translation(probe: _Probe, cells: list[StructureRecord], predictions: list[Prediction]) -> Check:
    moved = [replace(cell, frac_coords=cell.frac_coords + np.array([0.31, 0.17, 0.73])) for cell in cells]
    found = [probe.predict(cell) for cell in moved]
    worst = 0.0
    for before, after in zip(predictions, found, strict=True):
        worst = _larger(worst, _array(after.energy) - _array(before.energy))
        worst = _larger(worst, _array(after.forces) - _array(before.forces))
        worst = _larger(worst, _array(before.forces).sum(axis=0))
    return Check("translation changes nothing, and no net force acts", worst, 1e-6, "eV/atom, eV/Å", _size(predictions))


def _permutation(probe: _Probe, cells: list[StructureRecord], predictions: list[Prediction]) -> Check:
    worst = 0.0
    for cell, before in zip(cells, predictions, strict=True):
        order = np.arange(cell.num_atoms)[::-1]
        numbers, places = cell.atomic_numbers[order], cell.frac_coords[order]
        after = probe.predict(replace(cell, atomic_numbers=numbers, frac_coords=places))
        worst = _larger(worst, _array(after.energy) - _array(before.energy))
        worst = _larger(worst, _array(after.forces) - _array(before.forces)[order])
    return Check("the order of the atoms changes nothing", worst, 1e-6, "eV/atom, eV/Å", _size(predictions))


def _supercell(probe: _Probe, cells: list[StructureRecord], predictions: list[Prediction]) -> Check:
    worst = 0.0
    for cell, before in zip(cells, predictions, strict=True):
        half = cell.frac_coords * np.array([0.5, 1, 1])
        double = replace(
            cell,
            atomic_numbers=np.tile(cell.atomic_numbers, 2),
            lattice=cell.lattice * np.array([[2.0], [1.0], [1.0]]),
            frac_coords=np.concatenate([half, half + np.array([0.5, 0, 0])]),
        )
        after = probe.predict(double)
        worst = _larger(worst, _array(after.energy) - _array(before.energy))
        worst = _larger(worst, _array(after.forces) - np.tile(_array(before.forces), (2, 1)))
        worst = _larger(worst, (_array(after.stress) - _array(before.stress)) / EV_PER_CUBIC_ANGSTROM_IN_GPA)
    return Check("twice the cell has the same energy per atom", worst, 1e-6, "eV/atom, eV/Å, eV/Å³", _size(predictions))


def _cutoff(probe: _Probe, _cells: list[StructureRecord], _predictions: list[Prediction]) -> Check:
    """A pair of atoms drawn apart through both cutoffs: the energy has no step where bonds and angles end."""
    worst = scale = 0.0
    for cutoff in (probe.cutoffs.atom_cutoff, probe.cutoffs.bond_cutoff):
        distances = [cutoff - 1e-5, cutoff + 1e-5]
        near, far = probe.energies([_two_pairs(distance) for distance in distances])
        away = probe.energies([_two_pairs(cutoff - 0.3)])[0]
        worst, scale = max(worst, float(abs(near - far))), max(scale, float(abs(away - far)))
    return Check("the energy is smooth at the cutoffs", worst, 1e-3 * max(scale, 0.01), "eV", scale)


_LAWS: Final = (_forces, _stress, _rotation, _translation, _permutation, _supercell, _cutoff)


def _two_pairs(distance: float) -> StructureRecord:
    """Two pairs of iron and oxygen in a wide box, their irons at a distance (Å): only one bond crosses the cutoff."""
    box = 25.0
    places = np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0], [0.0, 1.9, 0.0], [distance, -1.8, 0.4]]) / box
    return StructureRecord(
        atomic_numbers=np.array([26, 26, 8, 8]),
        lattice=np.eye(3) * box,
        frac_coords=places + 0.3,
        source="physics",
        material_id="physics",
        frame_id="physics",
        functional="none",
    )


def _directions(rows: int) -> Iterator[tuple[int, int, int]]:
    return ((row, axis, sign) for row in range(rows) for axis in range(3) for sign in (1, -1))


def _array(tensor: torch.Tensor | None) -> NDArray[np.float64]:
    assert tensor is not None  # noqa: S101 - everything but magnetic moments was asked for
    return tensor.numpy()


def _larger(so_far: float, deviations: NDArray[np.float64]) -> float:
    largest = float(np.abs(deviations).max())
    return math.inf if math.isnan(largest) else max(so_far, largest)


def _relative(share: float, scale: float, least: float) -> float:
    return max(least, share * scale)


def _size(predictions: list[Prediction]) -> float:
    return max(float(np.abs(_array(prediction.forces)).max()) for prediction in predictions)
