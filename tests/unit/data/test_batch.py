"""Collating records: numbering, labels, types."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from rung.data.batch import GraphBatch, collate
from rung.data.fields import Labels
from rung.data.graph import count_angles, graph_record
from tests.unit.data.samples import ALL_LABELS, CUTOFFS, awkward_cells, random_record, record_of

RECORDS = [graph_record(record_of(cell), CUTOFFS, record_id=7 + i) for i, cell in enumerate(awkward_cells().values())]


def lengths(batch):
    """Bond lengths (num_bonds,), Å, and cosines (num_angles,) from the batch alone."""
    first, second = batch.bond_atoms
    image = torch.einsum("ui,uij->uj", batch.bond_image, batch.lattice[batch.bond_owner])
    position = torch.einsum("ni,nij->nj", batch.frac_coords, batch.lattice[batch.atom_owner])
    vectors = position[first] - position[second] - image
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = batch.angle_sign * (unit[batch.angle_bond_i] * unit[batch.angle_bond_j]).sum(1)
    return vectors.norm(dim=1), cosines


def test_a_batch_is_its_records_side_by_side():
    batch = collate(RECORDS, torch.float64)
    all_lengths, all_cosines = lengths(batch)
    angle_owner = batch.atom_owner[batch.angle_centre]
    for structure, record in enumerate(RECORDS):
        alone = collate([record], torch.float64)
        own_lengths, own_cosines = lengths(alone)
        mine = batch.bond_owner == structure
        torch.testing.assert_close(all_lengths[mine], own_lengths)
        torch.testing.assert_close(all_cosines[angle_owner == structure], own_cosines)
        atoms = batch.atom_owner == structure
        assert batch.atomic_numbers[atoms].tolist() == record.atomic_numbers.tolist()
        assert batch.frac_coords[atoms].tolist() == record.frac_coords.tolist()


def test_sizes_and_order():
    batch = collate(RECORDS)
    assert batch.num_structures == len(RECORDS)
    assert batch.num_atoms.tolist() == [record.num_atoms for record in RECORDS]
    assert batch.record_ids.tolist() == [record.record_id for record in RECORDS]
    assert batch.num_bonds == sum(record.num_bonds for record in RECORDS)
    assert batch.num_short_bonds == sum(record.num_short_bonds for record in RECORDS)
    assert batch.num_angles == sum(record.num_angles for record in RECORDS)
    own_lengths, _ = lengths(batch)
    assert own_lengths[: batch.num_short_bonds].max() < CUTOFFS.bond_cutoff
    assert own_lengths[batch.num_short_bonds :].min() >= CUTOFFS.bond_cutoff
    assert (batch.angle_bond_i.diff() >= 0).all()
    assert batch.angle_bond_j.max() < batch.num_short_bonds
    assert (batch.atom_owner.diff() >= 0).all()
    short = batch.bond_atoms[:, : batch.num_short_bonds].T.numpy()
    assert count_angles(short) == batch.num_angles
    assert (batch.atom_owner[batch.bond_atoms] == batch.bond_owner).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_are_those_of_the_docstring(dtype):
    batch = collate([graph_record(random_record(1), CUTOFFS)], dtype)
    floating = {"lattice", "frac_coords", "bond_image", "angle_sign", "energy", "forces", "stress", "magmoms"}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            flag = torch.bool if field.name.startswith("has_") else torch.int64
            assert value.dtype == (dtype if field.name in floating else flag), field.name
            assert value.is_contiguous(), field.name


@pytest.mark.parametrize("present", [Labels(flags) for flags in range(16)])
def test_absent_labels_are_zero_and_masked(present):
    records = [random_record(1, present), random_record(2, ALL_LABELS & ~present), random_record(3, ALL_LABELS)]
    batch = collate([graph_record(record, CUTOFFS) for record in records], torch.float64)
    expected = {"energy": [], "forces": [], "stress": [], "magmoms": []}
    for name, rows in expected.items():
        mask = [record.labels & Labels[name.upper()] > 0 for record in records]
        assert getattr(batch, f"has_{name}").tolist() == mask
        for record, there in zip(records, mask, strict=True):
            shape = {
                "energy": (1,),
                "forces": (record.num_atoms, 3),
                "stress": (1, 3, 3),
                "magmoms": (record.num_atoms,),
            }
            value = np.reshape(getattr(record, name), shape[name]) if there else np.zeros(shape[name])
            rows.append(value / record.num_atoms if name == "energy" else value)
        np.testing.assert_array_equal(getattr(batch, name).numpy(), np.concatenate(rows).astype(float))


def test_energy_per_atom_is_divided_in_double_precision():
    record = random_record(4, Labels.ENERGY)
    large = graph_record(record, CUTOFFS)
    object.__setattr__(large, "energy", -123_456.789_012_3 * record.num_atoms)
    assert collate([large]).energy.item() == np.float32(large.energy / record.num_atoms)


def test_moves_every_tensor():
    batch = collate(RECORDS[:2])
    moved = batch.to("meta")
    assert isinstance(moved, GraphBatch)
    assert moved.num_short_bonds == batch.num_short_bonds
    assert {t.device.type for t in vars(moved).values() if isinstance(t, torch.Tensor)} == {"meta"}


def test_refuses_nothing():
    with pytest.raises(ValueError, match="at least one record"):
        collate([])
