"""Shards: whole or absent, the same bytes every time, readable from every process."""

import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest

from rung.data import shard
from rung.data.codec import ShardError, encode
from rung.data.graph import graph_record
from rung.data.index import REJECTED, Index, write_splits
from rung.data.record import RecordError
from rung.data.shard import ShardEntry, ShardReader, ShardWriter, data_path, file_sha256
from tests.unit.data.samples import CUTOFFS, random_record

ROOT = Path(__file__).resolve().parents[3]
ENTRIES = [ShardEntry.of(random_record(seed), CUTOFFS) for seed in range(12)]


def write(folder, entries=ENTRIES, name="shard-00000"):
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, name) as writer:
        for entry in entries:
            writer.add(entry)
        return writer.finish()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_records_come_back(tmp_path):
    info = write(tmp_path)
    assert info.num_records == 12
    reader = ShardReader(data_path(tmp_path, info.name), first_id=100)
    records = reader.read([3, 0, 11])
    assert [encode(record) for record in records] == [ENTRIES[number].payload for number in (3, 0, 11)]
    assert [record.record_id for record in records] == [103, 100, 111]


def test_leaves_two_files_and_says_what_they_hash_to(tmp_path):
    info = write(tmp_path)
    assert files(tmp_path) == ["shard-00000.index.npz", "shard-00000.lmdb"]
    assert info.lmdb_sha256 == file_sha256(tmp_path / "shard-00000.lmdb")
    assert info.index_sha256 == file_sha256(tmp_path / "shard-00000.index.npz")


def test_same_records_give_the_same_bytes(tmp_path, monkeypatch):
    one = write(tmp_path / "one")
    later = time.time() + 1e7
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(later))
    assert write(tmp_path / "two") == one
    assert write(tmp_path / "other", ENTRIES[::-1]).lmdb_sha256 != one.lmdb_sha256


def test_same_bytes_when_the_map_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(shard, "_BYTES_PER_COMMIT", 20_000)
    monkeypatch.setattr(shard, "_FIRST_MAP_SIZE", 40_960)
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert one == two
    assert (tmp_path / "one" / "shard-00000.lmdb").stat().st_size > 40_960
    reader = ShardReader(data_path(tmp_path / "one", one.name), 0)
    assert [encode(record) for record in reader.read(range(12))] == [entry.payload for entry in ENTRIES]


def test_nothing_is_seen_before_it_is_finished(tmp_path):
    with ShardWriter(tmp_path, "shard-00000") as writer:
        writer.add(ENTRIES[0])
        assert not [name for name in files(tmp_path) if not name.startswith(".")]
        writer.finish()
    assert files(tmp_path) == ["shard-00000.index.npz", "shard-00000.lmdb"]


def test_an_exception_leaves_nothing(tmp_path):
    def interrupted():
        with ShardWriter(tmp_path, "shard-00000") as writer:
            writer.add(ENTRIES[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files(tmp_path) == []


def test_leavings_of_a_killed_run_do_not_matter(tmp_path):
    (tmp_path / ".shard-00000.lmdb.partial").write_bytes(b"half a shard")
    (tmp_path / ".shard-00000.index.npz.partial").write_bytes(b"half an index")
    assert write(tmp_path) == write(tmp_path / "clean")
    assert files(tmp_path) == ["clean", "shard-00000.index.npz", "shard-00000.lmdb"]


def test_replaces_a_shard(tmp_path):
    write(tmp_path)
    reader = ShardReader(data_path(tmp_path, "shard-00000"), 0)
    assert encode(reader.read([0])[0]) == ENTRIES[0].payload
    write(tmp_path, ENTRIES[::-1])
    assert encode(reader.read([0])[0]) == ENTRIES[-1].payload
    assert Index(tmp_path, ["shard-00000"]).frame_id[0] == b"f-11"


def test_refuses_an_empty_shard(tmp_path):
    with pytest.raises(ValueError, match="would be empty"), ShardWriter(tmp_path, "shard-00000") as writer:
        writer.finish()
    assert files(tmp_path) == []


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="cannot write shard") as caught:
        ShardWriter(tmp_path / "absent", "shard-00000")
    assert str(tmp_path / "absent") in str(caught.value)


def test_an_entry_without_a_graph_is_refused():
    lonely = random_record(1, max_atoms=1)
    object.__setattr__(lonely, "lattice", np.eye(3) * 30)
    with pytest.raises(RecordError, match="isolated_atom"):
        ShardEntry.of(lonely, CUTOFFS)


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from rung.data.shard import ShardEntry, ShardWriter
    from tests.unit.data.samples import CUTOFFS, random_record
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    entry = ShardEntry.of(random_record(0), CUTOFFS)
    try:
        with ShardWriter(Path(sys.argv[1]), "shard-00000") as writer:
            for _ in range(3000):
                writer.add(entry)
            writer.finish()
    except OSError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("limit", [4096, 1_000_000, 10_000_000])
def test_a_file_that_cannot_grow_is_one_clear_error(tmp_path, limit):
    """A limit on the size of files stands in for a full disk: at the start, in a commit, and in a later commit."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    assert "cannot write shard shard-00000" in done.stdout, done.stdout + done.stderr
    assert str(tmp_path) in done.stdout
    assert files(tmp_path) == []


def test_a_full_disk_is_named_as_such(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(ShardWriter, "_commit", full)
    with pytest.raises(OSError, match="free space") as caught:
        write(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert files(tmp_path) == []


def test_says_which_record_is_damaged(tmp_path):
    info = write(tmp_path)
    path = data_path(tmp_path, info.name)
    content = bytearray(path.read_bytes())
    at = bytes(content).index(ENTRIES[4].payload[:64])
    content[at + 50] ^= 1
    path.write_bytes(bytes(content))
    reader = ShardReader(path, first_id=1000)
    assert len(reader.read([3, 5])) == 2
    with pytest.raises(ShardError, match=r"record 1004 \(number 4 of .*shard-00000.lmdb.*damaged"):
        reader.read([3, 4, 5])
    with pytest.raises(ShardError, match="no record number 12"):
        reader.read([12])


def test_says_which_file_is_no_shard(tmp_path):
    path = tmp_path / "shard-00000.lmdb"
    with pytest.raises(ShardError, match=r"shard-00000\.lmdb cannot be read"):
        ShardReader(path, 0).read([0])
    path.write_bytes(b"not LMDB at all" * 1000)
    with pytest.raises(ShardError, match=r"shard-00000\.lmdb cannot be read"):
        ShardReader(path, 0).read([0])


def read_in_child(reader, queue):
    queue.put(encode(reader.read([2])[0]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reads_in_child_processes_and_after_them(tmp_path, method):
    info = write(tmp_path)
    reader = ShardReader(data_path(tmp_path, info.name), 0)
    expected = encode(reader.read([2])[0])  # open here before the child starts
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(reader, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0
    assert encode(reader.read([2])[0]) == expected


def test_two_readers_share_a_file_and_pickle(tmp_path):
    info = write(tmp_path)
    one = ShardReader(data_path(tmp_path, info.name), 0)
    two = pickle.loads(pickle.dumps(one))
    assert encode(one.read([1])[0]) == encode(two.read([1])[0]) == ENTRIES[1].payload


def test_a_larger_record_than_the_map_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(shard, "_FIRST_MAP_SIZE", 16_384)
    big = ShardEntry.of(random_record(3, max_atoms=27), CUTOFFS)
    huge = ShardEntry(payload=big.payload * 200, row=big.row)
    info = write(tmp_path, [huge])
    assert data_path(tmp_path, info.name).stat().st_size > len(huge.payload)


def test_the_graph_record_of_an_entry_is_what_is_stored():
    record = random_record(2)
    assert ShardEntry.of(record, CUTOFFS).payload == encode(graph_record(record, CUTOFFS))


def test_splits_are_given_afterwards(tmp_path):
    info = write(tmp_path)
    path = tmp_path / "shard-00000.index.npz"
    before = Index(tmp_path, [info.name])
    assert set(before.split.tolist()) == {REJECTED}
    splits = np.arange(12) % 3
    write_splits(path, splits)
    first = path.read_bytes()
    after = Index(tmp_path, [info.name])
    assert after.split.tolist() == splits.tolist()
    assert after.frame_id.tolist() == before.frame_id.tolist()
    write_splits(path, splits)
    assert path.read_bytes() == first
    with pytest.raises(ValueError, match="12 records"):
        write_splits(path, splits[:3])
