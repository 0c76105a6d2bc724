"""Formation and decomposition energies: whether a model orders the phases of a system as its labels do.

A formation energy is relative to the elements, a decomposition energy to the phases of other compositions (Bartel et
al., npj Comput. Mater. 6, 97 (2020)): how far a phase lies above the hull, or how far its composition's place on the
hull would have to rise until it decomposes, which is then negative. Each side, labels and model, has its own phase
diagram, so an error that all structures share by composition cancels, and what is left is the chemistry.

The competing phases are the lowest records of every material in the whole data set: the hull of the test materials
alone would be full of holes. Only materials of the split that is evaluated are judged.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from chgnet.model import CHGNet
from numpy.typing import NDArray
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from rung.config.preparation import SourceConfig
from rung.config.tree import EvaluateConfig
from rung.data.dataset import ShardDataset
from rung.data.fields import Labels
from rung.data.index import REJECTED, SPLITS
from rung.evaluation.breakdown import formulas
from rung.evaluation.comparison import predict_energies

MOST_ELEMENTS: Final = 6
"""Systems of more elements are left out: their hulls take minutes."""

_MIXABLE: Final = ("corrected", "mp2020")
"""Energies whose corrections put GGA and GGA+U on one scale."""

_System = frozenset[int]
"""Columns of the elements of a chemical system."""


@dataclass(frozen=True)
class Phase:
    """A material that both phase diagrams judge; energies in eV/atom.

    Attributes:
        record: material and frame.
        formula: of the phase.
        formation: by the labels and by the model.
        decomposition: by the labels and by the model.
        stable: on the hull, by the labels and by the model.
    """

    record: str
    formula: str
    formation: tuple[float, float]
    decomposition: tuple[float, float]
    stable: tuple[bool, bool]


@dataclass(frozen=True)
class PhaseJudgement:
    """What the phase diagrams say.

    Attributes:
        phases: judged ones.
        formation_mae: mean absolute error, eV/atom; None without phases.
        decomposition_mae: the same.
        stable: how many phases are on the hull by the labels, by the model, and by both.
        num_systems: phase diagrams built.
        left_out: materials of the split that were not judged, by reason.
    """

    phases: tuple[Phase, ...]
    formation_mae: float | None
    decomposition_mae: float | None
    stable: dict[str, int]
    num_systems: int
    left_out: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def judge_phases(model: CHGNet, dataset: ShardDataset, config: EvaluateConfig) -> PhaseJudgement:
    """Compare formation and decomposition energies of the materials of `config.split`.

    Args:
        model: on its device.
        dataset: the data set.
        config: how many systems at most, and how records are read.

    Raises:
        DamagedShardError: a shard cannot be read.
    """
    phases: list[Phase] = []
    left_out: dict[str, int] = defaultdict(int)
    num_systems = 0
    for competing in _lowest_records(dataset):
        systems = _systems(dataset, competing, config, left_out)
        num_systems += len(systems)
        if not systems:
            continue
        diagrams = _Diagrams(model, dataset, competing, config, systems)
        for system, judged in systems.items():
            phases += diagrams.judge(system, judged)
    return PhaseJudgement(
        phases=tuple(phases),
        formation_mae=_mae([phase.formation for phase in phases]),
        decomposition_mae=_mae([phase.decomposition for phase in phases]),
        stable={
            "labels": sum(phase.stable[0] for phase in phases),
            "model": sum(phase.stable[1] for phase in phases),
            "both": sum(all(phase.stable) for phase in phases),
        },
        num_systems=num_systems,
        left_out=dict(left_out),
    )


def _lowest_records(dataset: ShardDataset) -> Iterator[NDArray[np.int64]]:
    """Ids of the lowest labelled record of each material and composition, for each scale of energies."""
    index = dataset.index
    used = np.flatnonzero((index.split != REJECTED) & (index.labels & Labels.ENERGY > 0))
    used = used[np.argsort(index.energy[used] / index.num_atoms[used], kind="stable")]
    scale = np.zeros(len(used), "S1") if _one_scale(dataset) else index.functional[used]
    compositions, materials = dataset.compositions(used), index.material_id[used].tolist()
    for name in np.unique(scale):
        lowest: dict[tuple[bytes, bytes], int] = {}
        for at in np.flatnonzero(scale == name).tolist():
            counts = compositions[at] // np.gcd.reduce(compositions[at])
            lowest.setdefault((materials[at], counts.tobytes()), int(used[at]))
        yield np.array(sorted(lowest.values()))


def _one_scale(dataset: ShardDataset) -> bool:
    """Whether the energies of all functionals of the set may be compared."""
    source = dataset.manifest.config.get("source")
    return source is not None and SourceConfig.model_validate(source).energy_choice in _MIXABLE


def _systems(
    dataset: ShardDataset, competing: NDArray[np.int64], config: EvaluateConfig, left_out: dict[str, int]
) -> dict[_System, list[int]]:
    """Places in `competing` of the judged materials, by chemical system; counts those that cannot be judged."""
    compositions = dataset.compositions(competing) > 0
    elements = set(np.flatnonzero(compositions[compositions.sum(axis=1) == 1].any(axis=0)).tolist())
    groups: dict[_System, list[int]] = defaultdict(list)
    for at in np.flatnonzero(dataset.index.split[competing] == SPLITS.index(config.split)).tolist():
        system = frozenset(np.flatnonzero(compositions[at]).tolist())
        if len(system) == 1:
            left_out["elements"] += 1
        elif system - elements:
            left_out["an element without a record of its own"] += 1
        elif len(system) > MOST_ELEMENTS:
            left_out[f"more than {MOST_ELEMENTS} elements"] += 1
        else:
            groups[system].append(at)
    order = sorted(groups, key=sorted)
    chosen = np.random.default_rng(0).permutation(len(order))[: config.phase_diagrams]
    left_out_here = sum(map(len, groups.values())) - sum(len(groups[order[place]]) for place in chosen)
    if left_out_here:
        left_out["beyond phase_diagrams"] += left_out_here
    return {order[place]: groups[order[place]] for place in sorted(chosen.tolist())}


class _Diagrams:
    """Phase diagrams of labels and of a model over the same records."""

    def __init__(
        self,
        model: CHGNet,
        dataset: ShardDataset,
        competing: NDArray[np.int64],
        config: EvaluateConfig,
        systems: Mapping[_System, list[int]],
    ) -> None:
        compositions = dataset.compositions(competing).astype(np.int64)
        self._elements = [frozenset(np.flatnonzero(counts).tolist()) for counts in compositions]
        needed = np.array([any(each <= system for system in systems) for each in self._elements])
        sizes = compositions.sum(axis=1)
        predicted = np.zeros(len(competing))
        predicted[needed] = predict_energies(model, dataset, competing[needed], config.data, config.batch)
        self._energies = dataset.index.energy[competing], predicted * sizes
        self._needed = np.flatnonzero(needed).tolist()
        self._compositions = {
            at: Composition({Element.from_Z(int(z) + 1): int(compositions[at, z]) for z in self._elements[at]})
            for at in self._needed
        }
        self._formulas = dict(zip(self._needed, formulas(dataset, competing[needed]), strict=True))
        self._names = dataset.record_names(competing.tolist())

    def judge(self, system: _System, judged: list[int]) -> Iterator[Phase]:
        """The judged materials of one system."""
        inside = [at for at in self._needed if self._elements[at] <= system]
        sides = [self._one_side(energies, inside, judged) for energies in self._energies]
        for at in judged:
            (label, label_apart, label_stable), (model, model_apart, model_stable) = (side[at] for side in sides)
            yield Phase(
                record=self._names[at],
                formula=self._formulas[at],
                formation=(label, model),
                decomposition=(label_apart, model_apart),
                stable=(label_stable, model_stable),
            )

    def _one_side(
        self, energies: NDArray[np.float64], inside: list[int], judged: list[int]
    ) -> dict[int, tuple[float, float, bool]]:
        """Formation and decomposition energy of the judged materials, eV/atom, and whether they are on the hull."""
        entries = {at: PDEntry(self._compositions[at], float(energies[at])) for at in inside}
        diagram = PhaseDiagram(list(entries.values()))
        found = {}
        for at in judged:
            decomposition = diagram.get_phase_separation_energy(entries[at])
            assert decomposition is not None  # noqa: S101 - pymatgen leaves it out where it is told to
            formation = float(diagram.get_form_energy_per_atom(entries[at]))
            found[at] = formation, float(decomposition), entries[at] in diagram.stable_entries
        return found


def _mae(pairs: list[tuple[float, float]]) -> float | None:
    if not pairs:
        return None
    label, model = np.array(pairs).T
    return float(np.abs(model - label).mean())
