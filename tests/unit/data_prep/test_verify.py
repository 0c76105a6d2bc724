"""verify finds what is wrong with a prepared set, and says where."""

import dataclasses
import json
from pathlib import Path

import lmdb
import numpy as np
import pytest

from data_prep.convert import prepare
from data_prep.verify import main, verify
from rung.data.codec import ShardError
from rung.data.shard import ShardReader, file_sha256, record_key


@pytest.fixture
def folder(mptrj_frame, write, config_for) -> Path:
    content = {f"mp-{m}": {"a": mptrj_frame(), "b": mptrj_frame(structure=None)} for m in range(6)}
    config = config_for(write(content), shards={"max_mb": 0.0005}, filters={"duplicates": "keep"})
    prepare(config)
    return Path(config.output)


def edit_manifest(folder: Path, edit) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_sound(folder):
    result = verify(folder)
    assert result.problems == ()
    assert result.num_records == 6
    result.require_sound()
    assert main([str(folder)]) == 0


def test_flipped_byte(folder):
    path = folder / "shard-00001.lmdb"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    result = verify(folder)
    assert result.problems == ("shard-00001.lmdb has other content than when it was written (SHA-256 differs)",)
    with pytest.raises(ShardError, match=r"shard-00001\.lmdb"):
        result.require_sound()
    assert main([str(folder)]) == 1


def test_missing_file(folder):
    (folder / "shard-00000.index.npz").unlink()
    assert verify(folder).problems == ("shard-00000.index.npz is missing",)


def test_damaged_record_with_matching_hash(folder):
    path = folder / "shard-00000.lmdb"
    env = lmdb.open(str(path), subdir=False, lock=False)
    with env.begin(write=True) as transaction:
        payload = bytearray(transaction.get(record_key(2)))
        payload[-1] ^= 1
        transaction.put(record_key(2), bytes(payload))
    env.close()
    edit_manifest(folder, lambda manifest: manifest["shards"][0].update(lmdb_sha256=file_sha256(path)))
    (problem,) = verify(folder).problems
    assert "record 2" in problem
    assert "checksum" in problem


def test_counts_and_quarantine(folder):
    (folder / "quarantine.jsonl").write_text("")
    edit_manifest(folder, lambda manifest: manifest["counts"].update(read=13))
    problems = verify(folder).problems
    assert any("13 records read" in problem for problem in problems)
    assert any("quarantine.jsonl lists {}" in problem for problem in problems)


def test_split_of_another_salt(folder):
    edit_manifest(folder, lambda manifest: manifest["config"]["split"].update(salt="other", test=0.5))
    assert any("where filters and split put them" in problem for problem in verify(folder).problems)


def test_other_cutoffs(folder):
    edit_manifest(folder, lambda manifest: manifest["graph"].update(atom_cutoff=5.0, bond_cutoff=2.0))
    problems = verify(folder, most_problems=3).problems
    assert "record 0 (mp-0/a): a bond of" in problems[0]
    assert problems[-1] == "and maybe more: the check stopped here"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda record: {"energy": record.energy + 1.0}, "energy is -"),
        (lambda record: {"magmoms": None}, "labels is "),
        (lambda record: {"forces": record.forces * np.nan}, "forces holds a value that is not finite"),
        (lambda record: {"atomic_numbers": record.atomic_numbers + 90}, "atomic numbers from 101 to 107; allowed are"),
        (lambda record: {"bond_atoms": record.bond_atoms + 2}, "its bonds name atoms that it does not have"),
        (lambda record: {"bond_atoms": record.bond_atoms[:0], "num_short_bonds": 0}, "num_bonds is 0, its index says"),
        (lambda _: {"num_short_bonds": 1}, "its bonds are not sorted into shorter and longer than 3.0 Å"),
        (lambda record: {"num_angles": record.num_angles + 1}, "which its short bonds do not make"),
    ],
)
def test_a_record_that_contradicts_itself_or_its_index(folder, monkeypatch, spoil, problem):
    read = ShardReader.read

    def spoilt(self, positions):
        return [dataclasses.replace(record, **spoil(record)) for record in read(self, positions)]

    monkeypatch.setattr(ShardReader, "read", spoilt)
    problems = verify(folder, most_problems=100).problems
    assert any(text.startswith("record 0 (mp-0/a): ") and problem in text for text in problems), problems


def test_counts_of_the_manifest(folder):
    def miscounted(manifest):
        manifest["counts"]["stored"] = 7
        manifest["split"]["records"]["train"] += 1

    edit_manifest(folder, miscounted)
    problems = verify(folder).problems
    assert "the manifest counts 7 stored records, its shards 6" in problems
    assert any("train records, the index " in problem for problem in problems)


def test_a_quarantine_that_cannot_be_read(folder):
    (folder / "quarantine.jsonl").write_text("{")
    assert any("quarantine.jsonl" in problem for problem in verify(folder).problems)


def test_no_data_set(tmp_path):
    with pytest.raises(ShardError):
        verify(tmp_path)
    assert main([str(tmp_path)]) == 2
