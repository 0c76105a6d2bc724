"""What is remembered of each record: measures, the hash of its structure, and the table in a file."""

import numpy as np
import pytest

from data_prep.facts import FactsTable, RecordFacts, facts_path, structure_hash
from data_prep.sources.base import ParsedFrame
from rung.data.codec import ShardError
from rung.data.fields import Labels
from rung.data.record import Reason, StructureRecord
from tests.unit.data.samples import random_record

LATTICE = np.array([[4.0, 0.0, 0.0], [0.5, 4.1, 0.0], [0.0, 0.3, 4.2]])
COORDS = np.array([[0.0, 0.0, 0.0], [0.25, 0.5, 0.75], [0.5, 0.1, 0.9]])


def record(numbers=(11, 17, 17), lattice=LATTICE, coords=COORDS, **labels) -> StructureRecord:
    names = {"source": "test", "material_id": "m", "frame_id": "0", "functional": "GGA"}
    return StructureRecord(
        atomic_numbers=np.array(numbers), lattice=lattice, frac_coords=coords, **{"energy": -1.0, **names, **labels}
    )


@pytest.mark.parametrize(
    "same",
    [
        record(energy=-2.0),
        record((17, 11, 17), coords=COORDS[[1, 0, 2]]),  # in another order
        record(coords=COORDS + np.array([1, -2, 0])),  # images of the same atoms
        record(coords=COORDS - 1e-12),  # just below 0
        record(lattice=LATTICE + 1e-7, coords=COORDS + 1e-8),
    ],
)
def test_equal_structures_share_their_hash(same):
    assert structure_hash(same) == structure_hash(record())


@pytest.mark.parametrize(
    "other",
    [
        record((17, 11, 17)),
        record((11, 17, 35)),
        record(lattice=LATTICE * 1.001),
        record(lattice=LATTICE.T),
        record(coords=COORDS + 1e-3 * np.eye(3)),
        record((11, 17), coords=COORDS[:2]),
    ],
)
def test_other_structures_have_another(other):
    assert structure_hash(other) != structure_hash(record())


def test_measures():
    forces = [[3.0, 4.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    whole = record(energy=-6.0, forces=forces, stress=np.diag([1.0, -7.0, 2.0]), magmoms=[1.0, -3.0, 0.0])
    assert RecordFacts.of(ParsedFrame(whole, "energy"), 0, None).measures == (-2.0, 5.0, 7.0, 3.0)
    bare = RecordFacts.of(ParsedFrame(record(energy=None, forces=forces), None), 0, None).measures
    assert np.isnan(bare).tolist() == [True, False, True, True]


def test_table_reads_back_through_several_files(tmp_path):
    facts = [
        RecordFacts.of(
            ParsedFrame(random_record(seed, Labels(seed % 16)), "energy"),
            10 * seed,
            (Reason.TOO_LARGE, f"Å {seed}") if seed % 3 == 0 else None,
        )
        for seed in range(9)
    ]
    for name, part in (("a", facts[:4]), ("b", facts[4:])):
        FactsTable.of(part).save(facts_path(tmp_path, name))
    whole, read = FactsTable.of(facts), FactsTable.load(tmp_path, ["a", "b"])
    for name in ("measures", "energy_key", "structure_hash", "position", "refusal", "detail_row"):
        np.testing.assert_array_equal(getattr(read, name), getattr(whole, name))
    assert read.details == {0: "Å 0", 3: "Å 3", 6: "Å 6"}


def test_damaged_table(tmp_path):
    facts_path(tmp_path, "a").write_bytes(b"PK no")
    with pytest.raises(ShardError, match=r"a\.facts\.npz"):
        FactsTable.load(tmp_path, ["a"])
