"""One piece of a batch prediction: from raw structures to predictions and failures, in whatever process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from chgnet.model import CHGNet
from numpy.typing import NDArray

from rung.config.inference import BudgetConfig, PropertyName
from rung.config.preparation import GraphConfig
from rung.data.graph import graph_record
from rung.data.record import GraphRecord, Reason, RecordError, StructureRecord
from rung.inference.predictor import Predictor, Properties, TooLargeError
from rung.model.weights import from_state, portable_state, weights_hash
from rung.training.context import default_device


@dataclass(frozen=True, eq=False)
class Item:
    """One structure to predict for, not read yet.

    Attributes:
        index: its number in the input.
        name: where it stands there, such as `file.extxyz#3`.
        content: what the reader makes a structure of.
    """

    index: int
    name: str
    content: Any


@dataclass(frozen=True, eq=False)
class Predicted:
    """A structure and its predictions; index and name are those of its `Item`.

    Attributes:
        atomic_numbers: (num_atoms,).
        lattice: (3, 3), rows, Å.
        frac_coords: (num_atoms, 3), in [0, 1).
    """

    index: int
    name: str
    atomic_numbers: NDArray[np.uint8]
    lattice: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    properties: Properties


@dataclass(frozen=True)
class Failure:
    """A structure without predictions, and why: a value of `rung.data.record.Reason`, and what was found."""

    index: int
    name: str
    reason: str
    detail: str


Outcome = Predicted | Failure
Reader = Callable[[Any], StructureRecord | GraphRecord]
"""Makes a structure, or one with its graph, of an item's content; raises `RecordError`. Picklable."""


@dataclass(frozen=True, eq=False)
class ModelCopy:
    """A model in a form that travels to other processes and machines.

    Attributes:
        weights: `rung.model.weights.portable_state`.
        sha256: of these, `weights_hash`.
    """

    weights: Mapping[str, Any]
    sha256: str

    @classmethod
    def of(cls, model: CHGNet) -> "ModelCopy":
        """Copy a model."""
        return cls(portable_state(model), weights_hash(model))


@dataclass(frozen=True, eq=False)
class Work:
    """Predicts for a chunk of items; picklable.

    Attributes:
        model: the model.
        read: makes a structure of an item's content.
        budget: what is evaluated at once.
        properties: what is predicted besides the energy.
    """

    model: ModelCopy
    read: Reader
    budget: BudgetConfig
    properties: tuple[PropertyName, ...]

    def __call__(self, items: Sequence[Item]) -> list[Outcome]:
        """Return one outcome for each item, in their order."""
        predictor = _predictor(_Key(self))
        graphs: list[GraphRecord] = []
        outcomes: list[Outcome | None] = []
        for item in items:
            try:
                graphs.append(_graph(self.read(item.content), predictor.cutoffs))
                outcomes.append(None)
            except RecordError as error:
                outcomes.append(Failure(item.index, item.name, error.reason.value, error.detail))
        predictions = zip(graphs, predictor.predict(graphs), strict=True)
        return [
            _outcome(item, *next(predictions)) if failed is None else failed
            for item, failed in zip(items, outcomes, strict=True)
        ]


class _Key:
    """Finds the predictor that this process built for the same model and settings earlier."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._identity = (work.model.sha256, work.budget, work.properties)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


@lru_cache(maxsize=1)
def _predictor(key: _Key) -> Predictor:
    work = key.work
    return Predictor(from_state(work.model.weights, origin="model"), work.budget, work.properties, default_device())


def _graph(structure: StructureRecord | GraphRecord, cutoffs: GraphConfig) -> GraphRecord:
    return structure if isinstance(structure, GraphRecord) else graph_record(structure, cutoffs)


def _outcome(item: Item, graph: GraphRecord, properties: Properties | TooLargeError) -> Outcome:
    if isinstance(properties, TooLargeError):
        return Failure(item.index, item.name, Reason.TOO_LARGE.value, str(properties))
    if not properties.finite:
        detail = "the model predicts a value that is not finite: its weights, or a structure far from all it has seen"
        return Failure(item.index, item.name, Reason.NOT_FINITE.value, detail)
    return Predicted(item.index, item.name, graph.atomic_numbers, graph.lattice, graph.frac_coords, properties)
