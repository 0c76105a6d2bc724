"""Cells and records that the tests of `rung.data` share."""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

from rung.config.preparation import GraphConfig
from rung.data.dataset import MANIFEST_NAME, Manifest
from rung.data.fields import Labels
from rung.data.index import index_path, write_splits
from rung.data.record import StructureRecord
from rung.data.shard import ShardEntry, ShardWriter, file_sha256

CUTOFFS = GraphConfig()
ALL_LABELS = Labels.ENERGY | Labels.FORCES | Labels.STRESS | Labels.MAGMOMS


def awkward_cells() -> dict[str, Structure]:
    """Cells that break careless graphs, by what is awkward about them."""
    rng = np.random.default_rng(7)
    skewed = np.array([[3.1, 0.0, 0.0], [9.4, 3.3, 0.0], [-7.0, 10.1, 3.9]])
    return {
        "one atom": Structure(Lattice.from_parameters(2.5, 2.5, 2.5, 60, 60, 60), ["Cu"], [[0, 0, 0]]),
        "bonds but no angle": Structure(Lattice.cubic(4.5), ["Xe"], [[0.1, 0.2, 0.3]]),
        "one short bond": Structure(Lattice.cubic(9.0), ["H", "H"], [[0, 0, 0], [0.1, 0, 0]]),
        "very skewed": Structure(skewed, ["Li", "O"], [[0, 0, 0], [0.41, 0.52, 0.47]]),
        "left-handed": Structure(np.diag([4.0, 4.1, -4.2]), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.4]]),
        "thin": Structure(np.diag([2.1, 11.0, 12.0]), ["C", "N", "O"], rng.random((3, 3))),
        "outside the cell": Structure(Lattice.cubic(4.2), ["Mg", "O"], [[-1.3, 2.2, 0.1], [5.2, -0.3, 7.6]]),
        "on the faces": Structure(Lattice.cubic(4.2), ["Mg", "O"], [[1.0, 0.0, -1e-17], [0.5, 0.5, 1.0]]),
        "no symmetry": Structure(np.eye(3) * 7 + rng.normal(size=(3, 3)), ["Fe"] * 12, _apart(rng, 12)),
    }


def _apart(rng: np.random.Generator, number: int) -> np.ndarray:
    """Points of a 3 x 3 x 3 grid, shaken."""
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
    return (rng.permutation(grid)[:number] + rng.uniform(-0.15, 0.15, (number, 3))) / 3


def record_of(cell: Structure, **labels: object) -> StructureRecord:
    """Make a record of a pymatgen structure."""
    names = {"source": "test", "material_id": "m", "frame_id": "0", "functional": "GGA"}
    return StructureRecord(
        atomic_numbers=np.array([site.specie.Z for site in cell]),
        lattice=cell.lattice.matrix,
        frac_coords=cell.frac_coords,
        **{**names, **labels},
    )


def random_record(seed: int, labels: Labels = ALL_LABELS, max_atoms: int = 27, **names: str) -> StructureRecord:
    """Make a record of 1 to `max_atoms` atoms with random labels."""
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, max_atoms + 1))
    given = {
        "energy": rng.normal() * number,
        "forces": rng.normal(size=(number, 3)),
        "stress": rng.normal(size=(3, 3)),
        "magmoms": rng.normal(size=number),
    }
    return StructureRecord(
        atomic_numbers=rng.integers(1, 95, number),
        lattice=np.eye(3) * 5.2 + rng.normal(scale=0.3, size=(3, 3)),
        frac_coords=_apart(rng, number),
        **{name: value for name, value in given.items() if labels & Labels[name.upper()]},
        **{"source": "test", "material_id": f"m-{seed // 3}", "frame_id": f"f-{seed}", "functional": "GGA", **names},
    )


def write_dataset(folder: Path, records: Sequence[StructureRecord], per_shard: int = 7, splits: int = 3) -> Path:
    """Write records into shards and list them in a manifest; the splits alternate."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, start in enumerate(range(0, len(records), per_shard)):
        with ShardWriter(folder, f"shard-{number:05d}") as writer:
            for record in records[start : start + per_shard]:
                writer.add(ShardEntry.of(record, CUTOFFS))
            info = writer.finish()
        path = index_path(folder, info.name)
        write_splits(path, np.arange(start, start + info.num_records) % splits)
        shards.append(replace(info, index_sha256=file_sha256(path)))
    manifest = Manifest(graph=CUTOFFS, shards=tuple(shards))
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1))
    return folder


def real_cells(shared_data: Path) -> Iterator[tuple[str, Structure]]:
    """Cells of Materials Project relaxations and of MatPES elements, with a name."""
    with gzip.open(shared_data / "derived-mptrj-format" / "mp_tasks_in_mptrj_format.json.gz", "rt") as file:
        for frames in json.load(file).values():
            for name, frame in frames.items():
                yield name, Structure.from_dict(frame["structure"])
    with gzip.open(shared_data / "matpes-element-refs" / "MatPES-PBE-Element-Refs.json.gz", "rt") as file:
        for name, entry in json.load(file).items():
            yield f"MatPES {name}", Structure.from_dict(entry["structure"])
