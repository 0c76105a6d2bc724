"""Opening a data set, reading by id, and everything that can be wrong with a folder."""

import json
import multiprocessing
import pickle
import shutil
from itertools import pairwise

import numpy as np
import pytest

from rung.config.preparation import GraphConfig
from rung.data.codec import FORMAT_VERSION, ShardError, encode
from rung.data.dataset import MANIFEST_NAME, ShardDataset
from rung.data.fields import Labels
from rung.data.graph import graph_record
from rung.data.index import SPLITS
from tests.unit.data.samples import CUTOFFS, random_record, write_dataset

RECORDS = [
    random_record(seed, Labels(seed % 16), functional=("GGA", "GGA+U", "r2SCAN")[seed % 3]) for seed in range(24)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", RECORDS)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def edit_manifest(folder, **changes):
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_reads_by_id(folder):
    dataset = ShardDataset(folder, CUTOFFS)
    assert len(dataset) == 24
    for record_id in (0, 6, 7, 23):
        assert encode(dataset[record_id]) == encode(graph_record(RECORDS[record_id], CUTOFFS))
        assert dataset[record_id].record_id == record_id


def test_reads_many_in_the_order_asked_for(folder):
    ids = np.random.default_rng(0).integers(0, 24, 60)
    records = ShardDataset(folder).records.read(ids)
    assert [record.record_id for record in records] == ids.tolist()
    assert [record.energy for record in records] == [RECORDS[i].energy for i in ids]
    assert ShardDataset(folder).records.read([]) == []


@pytest.mark.parametrize("ids", [[-1], [24], [3, 24, 5]])
def test_refuses_ids_that_are_not_there(folder, ids):
    with pytest.raises(IndexError, match="0 to 23"):
        ShardDataset(folder).records.read(ids)


def test_index_says_what_the_records_hold(folder):
    dataset = ShardDataset(folder)
    index = dataset.index
    assert len(index) == 24
    for record in dataset.records.read(range(24)):
        row = {name: getattr(index, name)[record.record_id] for name in ("num_atoms", "num_bonds", "num_angles")}
        assert row == {"num_atoms": record.num_atoms, "num_bonds": record.num_bonds, "num_angles": record.num_angles}
        assert index.num_short_bonds[record.record_id] == record.num_short_bonds
        assert index.labels[record.record_id] == record.labels
        assert index.energy[record.record_id] == (record.energy or 0.0)
    assert index.functional.tolist() == [record.functional.encode() for record in RECORDS]
    assert index.source.tolist() == [b"test"] * 24


def test_splits_cover_every_record_once(folder):
    dataset = ShardDataset(folder)
    parts = [dataset.select(split) for split in SPLITS]
    assert sorted(np.concatenate(parts).tolist()) == list(range(24))
    assert [part[0] for part in parts] == [0, 1, 2]


def test_names(folder):
    assert ShardDataset(folder).record_names([23, 0]) == ["m-7/f-23", "m-0/f-0"]


def test_names_outside_ascii(tmp_path):
    folder = write_dataset(tmp_path / "set", [random_record(0, material_id="βMnO₂", frame_id="é")])
    assert ShardDataset(folder).record_names([0]) == ["βMnO₂/é"]


def test_compositions(folder):
    dataset = ShardDataset(folder)
    ids = np.array([17, 3, 3, 22, 9])
    expected = [np.bincount(RECORDS[i].atomic_numbers, minlength=95)[1:] for i in ids]
    np.testing.assert_array_equal(dataset.compositions(ids), expected)
    assert dataset.compositions(ids[:0]).shape == (0, 94)


def test_compositions_and_energies_are_of_records_with_an_energy(folder):
    compositions, energies = ShardDataset(folder).compositions_and_energies(np.arange(24)[::-1])
    labelled = [record for record in RECORDS[::-1] if record.energy is not None]
    assert energies.tolist() == [record.energy for record in labelled]
    assert compositions.sum(axis=1).tolist() == [record.num_atoms for record in labelled]


def test_hash_identifies_the_data(folder, copy):
    assert ShardDataset(copy).manifest_hash == ShardDataset(folder).manifest_hash
    edit_manifest(copy, counts={"kept": 24})
    assert ShardDataset(copy).manifest_hash != ShardDataset(folder).manifest_hash
    assert ShardDataset(copy).manifest.counts == {"kept": 24}


def read_all(dataset, queue):
    queue.put([encode(record) for record in dataset.records.read(range(24))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_works_in_a_child_process_while_open_here(folder, method):
    dataset = ShardDataset(folder)
    expected = [encode(dataset[record_id]) for record_id in range(24)]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_all, args=(dataset, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)


def test_can_be_pickled_after_reading(folder):
    dataset = ShardDataset(folder)
    assert dataset[5].record_id == 5
    assert encode(pickle.loads(pickle.dumps(dataset))[5]) == encode(dataset[5])


def test_two_of_one_folder_can_be_open(folder):
    assert encode(ShardDataset(folder)[1]) == encode(ShardDataset(folder)[1])


def refused(path, cutoffs=None):
    with pytest.raises(ShardError) as caught:
        ShardDataset(path, cutoffs)
    return str(caught.value)


def test_refuses_a_folder_without_a_manifest(tmp_path):
    assert "there is no such folder" in refused(tmp_path / "absent")
    assert "no manifest.json" in refused(tmp_path)
    assert "run prepare_data" in refused(tmp_path)


def test_refuses_a_newer_format_before_reading_the_rest(copy):
    edit_manifest(copy, format_version=FORMAT_VERSION + 1, shards="in some new shape")
    assert f"format {FORMAT_VERSION + 1}" in refused(copy)
    assert "update" in refused(copy)


@pytest.mark.parametrize("changes", [{"kind": "something else"}, {"shards": 3}, {"graph": {"atom_cutoff": -6}}])
def test_refuses_a_manifest_that_is_none(copy, changes):
    edit_manifest(copy, **changes)
    assert "not a manifest" in refused(copy)
    (copy / MANIFEST_NAME).write_text("{")
    assert "not a manifest" in refused(copy)


def test_refuses_other_cutoffs(folder):
    message = refused(folder, GraphConfig(atom_cutoff=5.0, bond_cutoff=2.5))
    for words in ("6.0", "3.0", "5.0", "2.5", "graph.atom_cutoff", "model.graph"):
        assert words in message


@pytest.mark.parametrize("name", ["../shard-00000", "a/b", "..", "", "/etc/passwd"])
def test_refuses_shards_outside_the_folder(copy, name):
    shards = json.loads((copy / MANIFEST_NAME).read_text())["shards"]
    edit_manifest(copy, shards=[{**shards[0], "name": name}])
    assert "beside it" in refused(copy)


def test_refuses_no_shards(copy):
    edit_manifest(copy, shards=[])
    assert "no shards" in refused(copy)


@pytest.mark.parametrize("name", ["shard-00001.lmdb", "shard-00002.index.npz"])
def test_refuses_missing_and_empty_files(copy, name):
    (copy / name).write_bytes(b"")
    assert f"{name} is empty" in refused(copy)
    (copy / name).unlink()
    assert f"{name} is missing" in refused(copy)


def test_refuses_a_damaged_index(copy):
    (copy / "shard-00000.index.npz").write_bytes(b"PK not a zip file")
    assert "shard-00000.index.npz cannot be read" in refused(copy)


def test_refuses_an_index_of_another_length(copy):
    shutil.copy(copy / "shard-00003.index.npz", copy / "shard-00000.index.npz")
    assert "3 records, the manifest says 7" in refused(copy)


@pytest.mark.parametrize("name", ["shard-00001.lmdb", "shard-00002.index.npz"])
def test_verify_hash_finds_one_changed_bit(copy, name):
    dataset = ShardDataset(copy)
    dataset.verify_hash()
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(ShardError, match=name):
        dataset.verify_hash()


def test_smaller_shares_are_parts_of_larger_ones(tmp_path):
    records = [random_record(seed, max_atoms=2, material_id=f"mp-{seed // 2}") for seed in range(600)]
    dataset = ShardDataset(write_dataset(tmp_path / "set", records, per_shard=600, splits=1))
    shares = [0.01, 0.1, 0.5, 1.0]
    parts = [dataset.select("train", share) for share in shares]
    for smaller, larger in pairwise(parts):
        assert set(smaller) < set(larger)
    assert len(parts[-1]) == 600
    for share, part in zip(shares, parts, strict=True):
        materials = {name.partition("/")[0] for name in dataset.record_names(part)}
        assert len(part) == 2 * len(materials)  # whole materials
        assert abs(len(materials) - 300 * share) <= 4 * (300 * share * (1 - share)) ** 0.5
    grown = ShardDataset(write_dataset(tmp_path / "grown", records[::-1], per_shard=600, splits=1))
    assert set(dataset.record_names(parts[1])) == set(grown.record_names(grown.select("train", 0.1)))
