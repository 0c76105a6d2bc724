"""Labelled data without a download: prototype crystals, labelled by the two models that the chgnet package carries.

CHGNet 0.3.0 stands for GGA and CHGNet r2scan for r2SCAN. Both label the same structures under the same names, so the
shift between the functionals can be seen and learnt, at any size, offline. These are predictions of a model, not
first-principles results: the name of the data set says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
from chgnet.model import CHGNet
from pymatgen.core import Element

from data_prep.filters import Rejection
from data_prep.sources.base import ParsedFrame, RawFrame
from data_prep.sources.prototypes import PROTOTYPES, elements_for, formula, lattice_constant, unit_cell
from rung.config.sections import GraphConfig
from rung.data.batch import collate
from rung.data.graph import graph_record
from rung.data.record import RecordError, StructureRecord
from rung.model.chgnet import Prediction, evaluate
from rung.model.weights import load

MODEL_OF: Final = {"GGA": "0.3.0", "r2SCAN": "r2scan"}
"""The bundled model that stands for a functional."""

FRAMES_PER_MATERIAL: Final = 4
_CHUNK: Final = 64
_DOUBLED: Final = 0.15  # share of materials whose cell is doubled
_SMALL_CELL: Final = 5  # atoms; larger cells are not doubled
_SIZE: Final = (0.97, 1.06)  # lattice constant relative to the sum of radii
_STRAIN: Final = 0.02
_DISPLACEMENT: Final = (0.01, 0.12)  # Å, range of the standard deviation


@dataclass(frozen=True)
class SurrogateParser:
    """Builds structures by number and labels them together in one batch.

    Attributes:
        source: name of the data set.
        functional: `GGA` or `r2SCAN`.
        seed: of the structures.
    """

    source: str
    functional: str
    seed: int

    def __call__(self, frames: Sequence[RawFrame]) -> list[ParsedFrame | Rejection]:
        """Return the labelled record, or a rejection, of each structure."""
        model = _model(MODEL_OF[self.functional])
        cutoffs = GraphConfig(atom_cutoff=model.graph_converter.atom_graph_cutoff, bond_cutoff=model.graph_converter.bond_graph_cutoff)
        outcomes: list[ParsedFrame | Rejection | None] = []
        records, graphs = [], []
        for frame in frames:
            record = self.structure(frame.position)
            try:
                graphs.append(graph_record(record, cutoffs))
            except RecordError as error:
                names = (self.source, record.material_id, record.frame_id)
                outcomes.append(Rejection(*names, frame.position, error.reason, error.detail))
                continue
            outcomes.append(None)
            records.append(record)
        if not records:
            return [outcome for outcome in outcomes if outcome is not None]
        labelled = iter(_labelled(records, evaluate(model, collate(graphs))))
        return [outcome or ParsedFrame(next(labelled), "energy") for outcome in outcomes]

    def structure(self, number: int) -> StructureRecord:
        """Structure `number` without labels: a function of the seed and the number alone."""
        material, frame = divmod(number, FRAMES_PER_MATERIAL)
        rng = np.random.default_rng([self.seed, material])
        prototype = PROTOTYPES[rng.integers(len(PROTOTYPES))]
        charges = prototype.charges[rng.integers(len(prototype.charges))]
        symbols = _draw_elements(charges, rng)
        cell = unit_cell(prototype)
        edge = lattice_constant(prototype, symbols, charges) * rng.uniform(*_SIZE)
        lattice, frac_coords, roles = cell.lattice * edge, cell.frac_coords, cell.roles
        if len(roles) <= _SMALL_CELL and rng.random() < _DOUBLED:
            lattice = lattice * [[2.0], [1.0], [1.0]]
            halves = frac_coords / [2.0, 1.0, 1.0]
            frac_coords = np.concatenate([halves, halves + [0.5, 0.0, 0.0]])
            roles = np.tile(roles, 2)
        rng = np.random.default_rng([self.seed, material, frame])
        lattice, frac_coords = _distorted(lattice, frac_coords, rng, at_rest=frame == 0)
        return StructureRecord(
            atomic_numbers=np.array([Element(symbol).Z for symbol in symbols])[roles],
            lattice=lattice,
            frac_coords=frac_coords,
            source=self.source,
            material_id=f"surrogate-{prototype.name}-{formula(prototype, symbols)}",
            frame_id=f"{self.seed}-{number}",
            functional=self.functional,
        )


class SurrogateSource:
    """A set of a given number of structures; a larger one begins with the same structures.

    Args:
        parser: what builds and labels them.
        num_structures: how many.
    """

    chunk = _CHUNK

    def __init__(self, parser: SurrogateParser, num_structures: int) -> None:
        self.name = parser.source
        self.parser = parser
        self._num_structures = num_structures
        self._done = 0

    def frames(self) -> Iterator[RawFrame]:
        """Number the structures."""
        for number in range(self._num_structures):
            self._done = number + 1
            yield RawFrame((str(number),), number, b"")

    def progress(self) -> tuple[int, int, str]:
        """Structures numbered, structures in all, unit."""
        return self._done, self._num_structures, "structures"

    def facts(self) -> dict[str, Any]:
        """Who labelled the structures."""
        return {"labelled_by": f"CHGNet {MODEL_OF[self.parser.functional]}", "is_dft": False}

    def close(self) -> None:
        """Nothing is held."""


@cache
def _model(name: str) -> CHGNet:
    return load(name).eval()


def _draw_elements(charges: tuple[int, ...], rng: np.random.Generator) -> list[str]:
    """One element for each charge, all of them different."""
    symbols: list[str] = []
    for charge in charges:
        choices = [symbol for symbol in elements_for(charge) if symbol not in symbols]
        symbols.append(choices[rng.integers(len(choices))])
    return symbols


def _distorted(
    lattice: np.ndarray, frac_coords: np.ndarray, rng: np.random.Generator, *, at_rest: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Strain the cell (3, 3) and, unless the atoms are at rest, displace them (num_atoms, 3)."""
    strain = rng.normal(scale=_STRAIN, size=(3, 3))
    lattice = lattice @ (np.eye(3) + (strain + strain.T) / 2)
    if at_rest:
        return lattice, frac_coords
    displacement = rng.normal(scale=rng.uniform(*_DISPLACEMENT), size=frac_coords.shape)
    return lattice, frac_coords + displacement @ np.linalg.inv(lattice)


def _labelled(records: Sequence[StructureRecord], prediction: Prediction) -> list[StructureRecord]:
    """Give the records of a batch the predicted properties as labels."""
    assert prediction.forces is not None  # noqa: S101 - all properties were asked for
    assert prediction.stress is not None  # noqa: S101
    assert prediction.magmoms is not None  # noqa: S101
    ends = np.cumsum([record.num_atoms for record in records])[:-1]
    forces = np.split(prediction.forces.numpy(), ends)
    magmoms = np.split(prediction.magmoms.numpy(), ends)
    return [
        replace(
            record,
            energy=float(prediction.energy[i]) * record.num_atoms,
            forces=forces[i],
            stress=prediction.stress[i].numpy(),
            magmoms=magmoms[i],
        )
        for i, record in enumerate(records)
    ]
