"""Small crystals of every awkward kind, as upstream's graphs and as one of rung's batches."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chgnet.graph import CrystalGraphConverter
from pymatgen.core import Lattice, Structure

from rung.config.preparation import GraphConfig
from rung.config.sections import ModelConfig
from rung.data.batch import GraphBatch, collate
from rung.data.graph import graph_record
from rung.data.record import StructureRecord
from rung.model.weights import build, load


def _shaken(structure: Structure, seed: int, strain: float = 0.02, shift: float = 0.08) -> Structure:
    """Strain the cell and shift the atoms (Å), so that no symmetry hides an error."""
    rng = np.random.default_rng(seed)
    matrix = structure.lattice.matrix @ (np.eye(3) + rng.normal(scale=strain, size=(3, 3)))
    moved = Structure(matrix, structure.species, structure.frac_coords)
    positions = moved.cart_coords + rng.normal(scale=shift, size=(len(moved), 3))
    return Structure(matrix, moved.species, positions, coords_are_cartesian=True, to_unit_cell=True)


@pytest.fixture(scope="session")
def cells() -> dict[str, Structure]:
    """Crystals by name; `iron` has one atom, `caesium` and `xenon` have bonds but no angle."""
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.3), ["Mn", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    layered = Structure(
        Lattice.hexagonal(2.9, 7.0),
        ["Li", "Co", "O", "O"],
        [[0, 0, 0.5], [0, 0, 0], [1 / 3, 2 / 3, 0.15], [2 / 3, 1 / 3, 0.85]],
    )
    return {
        "iron": Structure(
            _shaken(
                Structure(Lattice.from_parameters(2.48, 2.48, 2.48, 109.5, 109.5, 109.5), ["Fe"], [[0, 0, 0]]), 1
            ).lattice,
            ["Fe"],
            [[0, 0, 0]],
        ),
        "manganese oxide": _shaken(salt, 2),
        "caesium": Structure(Lattice.cubic(6.1), ["Cs", "Cs"], [[0, 0, 0], [0.5, 0.5, 0.47]]),
        "layered oxide": _shaken(layered, 3),
        "xenon": Structure(Lattice.cubic(4.6), ["Xe"], [[0, 0, 0]]),
    }


@pytest.fixture(scope="session")
def to_batch() -> Callable[..., GraphBatch]:
    """Function from structures to one batch without labels."""

    def make(
        structures: Sequence[Structure], dtype: torch.dtype = torch.float32, cutoffs: GraphConfig | None = None
    ) -> GraphBatch:
        return collate(
            [graph_record(_record(structure), cutoffs or GraphConfig()) for structure in structures], dtype=dtype
        )

    return make


def _record(structure: Structure) -> StructureRecord:
    return StructureRecord(
        atomic_numbers=structure.atomic_numbers,
        lattice=structure.lattice.matrix,
        frac_coords=structure.frac_coords,
        energy=0.0,
        source="test",
        material_id="m",
        frame_id="f",
        functional="GGA",
    )


@pytest.fixture(scope="session")
def upstream() -> Callable[..., SimpleNamespace]:
    """Function from (model, structures) to upstream's own prediction, flattened like rung's."""

    def predict(model, structures: Sequence[Structure]) -> SimpleNamespace:
        convert = CrystalGraphConverter(
            atom_graph_cutoff=model.graph_converter.atom_graph_cutoff,
            bond_graph_cutoff=model.graph_converter.bond_graph_cutoff,
        )
        raw = model([convert(structure) for structure in structures], task="efsm")
        return SimpleNamespace(
            energy=raw["e"],
            forces=torch.cat(list(raw["f"])),
            stress=torch.stack(list(raw["s"])),
            magmoms=torch.cat(list(raw["m"])),
            raw=raw,
        )

    return predict


@pytest.fixture(params=["0.3.0", "r2scan"])
def bundled(request):
    """Each model that the chgnet package carries, fresh."""
    return load(request.param)


@pytest.fixture
def small():
    """A small network with random weights and a reference."""
    torch.manual_seed(0)
    return build(ModelConfig(feature_dim=12, num_radial=7, num_angular=5, num_blocks=3))
