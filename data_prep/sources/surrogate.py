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
from numpy.typing import NDArray
from pymatgen.core import Element

from data_prep.sources.base import ParsedFrame, RawFrame, Rejection
from data_prep.sources.prototypes import (
    PROTOTYPES,
    Prototype,
    UnitCell,
    elements_for,
    formula,
    lattice_constant,
    unit_cell,
)
from rung.config.preparation import GraphConfig, SourceConfig
from rung.data.batch import collate
from rung.data.graph import graph_record
from rung.data.record import GraphRecord, RecordError, StructureRecord
from rung.model.chgnet import evaluate
from rung.model.weights import load

MODEL_OF: Final = {"GGA": "0.3.0", "r2SCAN": "r2scan"}
"""The bundled model that stands for a functional."""

FRAMES_PER_MATERIAL: Final = 4
_CHARGES: Final = sorted({charge for each in PROTOTYPES for charges in each.charges for charge in charges})
_CHUNK: Final = 64
_DOUBLED: Final = 0.15  # share of materials whose cell is doubled
_SMALL_CELL: Final = 5  # atoms; larger cells are not doubled
_SIZE: Final = (0.97, 1.06)  # lattice constant relative to the sum of radii
_STRAIN: Final = 0.02  # standard deviation of a component
_DISPLACEMENT: Final = (0.01, 0.12)  # Å, range of the standard deviation


@dataclass(frozen=True)
class SurrogateParser:
    """Builds structures by number and labels them together in one batch.

    Attributes:
        source: name of the data set.
        functional: `GGA` or `r2SCAN`.
        seed: of the structures.
        elements: to build with; all that are known if None.
    """

    source: str
    functional: str
    seed: int
    elements: tuple[str, ...] | None = None

    def __call__(self, frames: Sequence[RawFrame]) -> list[ParsedFrame | Rejection]:
        """Return the labelled record, or a rejection, of each structure."""
        model = _model(MODEL_OF[self.functional])
        records = [self.structure(frame.position) for frame in frames]
        graphs = [_graph_or_error(record, model) for record in records]
        usable = [graph for graph in graphs if isinstance(graph, GraphRecord)]
        labels = iter(_labels(model, usable) if usable else [])
        outcomes: list[ParsedFrame | Rejection] = []
        for frame, record, graph in zip(frames, records, graphs, strict=True):
            if isinstance(graph, RecordError):
                names = (self.source, record.material_id, record.frame_id)
                outcomes.append(Rejection(*names, frame.position, graph.reason, graph.detail))
            else:
                outcomes.append(ParsedFrame(replace(record, **next(labels)), "energy"))
        return outcomes

    def structure(self, number: int) -> StructureRecord:
        """Structure `number` without labels: a function of the seed and the number alone."""
        material, frame = divmod(number, FRAMES_PER_MATERIAL)
        rng = np.random.default_rng([self.seed, material])
        possible = _possible(self.elements)
        prototype, all_charges = possible[rng.integers(len(possible))]
        charges = all_charges[rng.integers(len(all_charges))]
        symbols = _draw_elements(charges, self.elements, rng)
        edge = lattice_constant(prototype, symbols, charges) * rng.uniform(*_SIZE)
        cell = unit_cell(prototype)
        if len(cell.roles) <= _SMALL_CELL and rng.random() < _DOUBLED:
            cell = _doubled(cell)
        rng = np.random.default_rng([self.seed, material, frame])
        lattice, frac_coords = _distorted(edge * cell.lattice, cell.frac_coords, rng, at_rest=frame == 0)
        return StructureRecord(
            atomic_numbers=np.array([Element(symbol).Z for symbol in symbols])[cell.roles],
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

    def identity(self) -> dict[str, Any]:
        """The structures follow from the config."""
        return {}

    def progress(self) -> tuple[int, int, str]:
        """Structures numbered, structures in all, unit."""
        return self._done, self._num_structures, "structures"

    def facts(self) -> dict[str, Any]:
        """Who labelled the structures."""
        return {"labelled_by": f"CHGNet {MODEL_OF[self.parser.functional]}", "is_dft": False}

    def close(self) -> None:
        """Nothing is held."""


def open_surrogate(config: SourceConfig, name: str) -> SurrogateSource:
    """Open the surrogate for one functional.

    Raises:
        ValueError: there is no such functional, or no structure of the elements asked for.
    """
    if config.functional not in MODEL_OF:
        raise ValueError(f"source.functional is {config.functional!r}; the surrogate has {' and '.join(MODEL_OF)}")
    known = {symbol for charge in _CHARGES for symbol in elements_for(charge)}
    if unknown := sorted(set(config.elements or ()) - known):
        raise ValueError(f"source.elements names {', '.join(unknown)}; the surrogate has {' '.join(sorted(known))}")
    if not _possible(config.elements):
        raise ValueError(
            f"source.elements is {', '.join(config.elements or ())}, of which no structure can be built: add a metal,"
            " or a cation and an anion of opposite charges"
        )
    parser = SurrogateParser(name, config.functional, config.seed, config.elements)
    return SurrogateSource(parser, config.num_structures)


@cache
def _model(name: str) -> CHGNet:
    return load(name).eval()


@cache
def _possible(elements: tuple[str, ...] | None) -> list[tuple[Prototype, list[tuple[int, ...]]]]:
    """Prototypes with those of their charges for which there are enough different elements."""
    found = [(each, [c for c in each.charges if _enough(c, elements)]) for each in PROTOTYPES]
    return [(prototype, charges) for prototype, charges in found if charges]


def _enough(charges: tuple[int, ...], elements: tuple[str, ...] | None) -> bool:
    """Whether every role finds an element, whatever those before it of the same sign have taken."""
    return all(
        len(_choices(charge, elements)) > sum(np.sign(other) == np.sign(charge) for other in charges[:at])
        for at, charge in enumerate(charges)
    )


@cache
def _choices(charge: int, elements: tuple[str, ...] | None) -> list[str]:
    return [symbol for symbol in elements_for(charge) if elements is None or symbol in elements]


def _draw_elements(charges: tuple[int, ...], elements: tuple[str, ...] | None, rng: np.random.Generator) -> list[str]:
    """One element for each charge, all of them different."""
    symbols: list[str] = []
    for charge in charges:
        choices = [symbol for symbol in _choices(charge, elements) if symbol not in symbols]
        symbols.append(choices[rng.integers(len(choices))])
    return symbols


def _doubled(cell: UnitCell) -> UnitCell:
    """Two cells side by side along the first vector."""
    first_half = cell.frac_coords * np.array([0.5, 1.0, 1.0])
    second_half = first_half + np.array([0.5, 0.0, 0.0])
    lattice = cell.lattice * np.array([[2.0], [1.0], [1.0]])
    return UnitCell(lattice, np.concatenate([first_half, second_half]), np.tile(cell.roles, 2))


def _distorted(
    lattice: NDArray[np.float64], frac_coords: NDArray[np.float64], rng: np.random.Generator, *, at_rest: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Strain the cell (3, 3) and, unless the atoms are at rest, displace them (num_atoms, 3)."""
    strain = rng.normal(scale=_STRAIN, size=(3, 3))
    lattice = lattice @ (np.eye(3) + (strain + strain.T) / 2)
    if at_rest:
        return lattice, frac_coords
    displacement = rng.normal(scale=rng.uniform(*_DISPLACEMENT), size=frac_coords.shape)
    return lattice, frac_coords + displacement @ np.linalg.inv(lattice)


def _graph_or_error(record: StructureRecord, model: CHGNet) -> GraphRecord | RecordError:
    converter = model.graph_converter
    cutoffs = GraphConfig(atom_cutoff=converter.atom_graph_cutoff, bond_cutoff=converter.bond_graph_cutoff)
    try:
        return graph_record(record, cutoffs)
    except RecordError as error:
        return error


def _labels(model: CHGNet, graphs: Sequence[GraphRecord]) -> Iterator[dict[str, Any]]:
    """The labels of each structure: energy of the cell in eV, forces, stress and moments in Rung's units."""
    prediction = evaluate(model, collate(graphs))
    assert prediction.forces is not None  # noqa: S101 - all properties were asked for
    assert prediction.stress is not None  # noqa: S101
    assert prediction.magmoms is not None  # noqa: S101
    sizes = [graph.num_atoms for graph in graphs]
    forces, magmoms = prediction.forces.split(sizes), prediction.magmoms.split(sizes)
    for i, size in enumerate(sizes):
        yield {
            "energy": float(prediction.energy[i]) * size,
            "forces": forces[i].numpy(),
            "stress": prediction.stress[i].numpy(),
            "magmoms": magmoms[i].numpy(),
        }
