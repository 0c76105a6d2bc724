"""verify finds what is wrong with a prepared set, and says where."""

import json
from pathlib import Path

import lmdb
import pytest

from data_prep.convert import prepare
from data_prep.verify import main, verify
from rung.data.codec import ShardError
from rung.data.shard import file_sha256, record_key


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


def test_no_data_set(tmp_path):
    with pytest.raises(ShardError):
        verify(tmp_path)
    assert main([str(tmp_path)]) == 2
