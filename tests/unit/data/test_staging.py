"""Data sets behind URLs: copied once, checked, kept within a limit, and never removed from under who reads them."""

import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import fsspec
import pytest

from rung.config.sections import DataConfig
from rung.data import staging
from rung.data.codec import ShardError
from rung.data.dataset import ShardDataset
from rung.data.staging import manifest_hash, staged
from tests.unit.data.samples import random_record, write_dataset

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    return {
        name: write_dataset(root / name, [random_record(100 * number + seed) for seed in range(12)])
        for number, name in enumerate(NAMES)
    }


@pytest.fixture(params=["memory", "file"])
def urls(request, sets, tmp_path):
    """The sets behind URLs, in memory or in other folders."""
    if request.param == "file":
        yield {name: f"file://{shutil.copytree(folder, tmp_path / 'remote' / name)}" for name, folder in sets.items()}
        return
    system = fsspec.filesystem("memory")
    for name, folder in sets.items():
        system.put(f"{folder}/", f"/bucket/{name}/", recursive=True)
    yield {name: f"memory://bucket/{name}" for name in sets}
    system.rm("/bucket", recursive=True)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_held", {})
    return lambda url, limit=1.0: DataConfig(path=url, cache=str(tmp_path / "cache"), cache_limit=limit)


def let_go(folder: Path) -> None:
    """What the end of a process does."""

    os.close(staging._held.pop(folder))


def remote_file(url: str, name: str):
    system, root = fsspec.core.url_to_fs(url)
    return system, f"{root}/{name}"


def size_gb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e9


def test_a_local_folder_is_itself(sets, config):
    assert staged(config(str(sets["one"]))) == sets["one"]


def test_the_copy_is_the_set(urls, sets, config):
    copy = staged(config(urls["one"]))
    ShardDataset(copy).verify_hash()
    assert ShardDataset(copy).manifest_hash == ShardDataset(sets["one"]).manifest_hash == manifest_hash(urls["one"])
    assert staged(config(urls["one"])) == copy
    assert staged(config(urls["two"])) != copy


def test_copied_once(urls, config):
    copy = staged(config(urls["one"]))
    let_go(copy)
    system, path = remote_file(urls["one"], "shard-00000.lmdb")
    system.rm(path)
    assert staged(config(urls["one"])) == copy


def test_an_interrupted_copy_is_gone_on_with(urls, config, monkeypatch):
    copy = staged(config(urls["one"]))
    let_go(copy)
    (copy / ".complete").unlink()
    (copy / "shard-00000.lmdb").unlink()
    (copy / ".shard-00000.lmdb.partial").write_bytes(b"half")
    kept = (copy / "shard-00001.lmdb").stat().st_mtime_ns
    assert staged(config(urls["one"])) == copy
    ShardDataset(copy).verify_hash()
    assert (copy / "shard-00001.lmdb").stat().st_mtime_ns == kept


def test_a_damaged_file_is_named_and_not_kept(urls, config, tmp_path):
    system, path = remote_file(urls["one"], "shard-00001.lmdb")
    content = bytearray(system.cat_file(path))
    content[len(content) // 2] ^= 1
    system.pipe_file(path, bytes(content))
    with pytest.raises(ShardError, match=r"shard-00001\.lmdb has SHA-256 .*, its manifest says .*upload it again"):
        staged(config(urls["one"]))
    assert not list((tmp_path / "cache").glob("*/.complete"))
    assert not list((tmp_path / "cache").glob("*/shard-00001.lmdb"))


@pytest.mark.parametrize(
    ("name", "message"), [("shard-00001.index.npz", "is not whole"), ("manifest.json", "is no prepared data set")]
)
def test_a_missing_file_is_named(urls, config, name, message):
    system, path = remote_file(urls["one"], name)
    system.rm(path)
    with pytest.raises(ShardError, match=message):
        staged(config(urls["one"]))


@pytest.mark.parametrize("call", ["cat_file", "size", "get_file"])
@pytest.mark.parametrize("error", [RuntimeError("no token"), TimeoutError("no answer")])
def test_errors_of_a_back_end_name_what_was_read(urls, config, monkeypatch, call, error):
    system, _ = remote_file(urls["one"], "manifest.json")

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(type(system), call, refuse)
    with pytest.raises(ShardError, match=rf"^\w+://.* cannot be read: {error}" if call != "get_file" else str(error)):
        staged(config(urls["one"]))


@pytest.mark.parametrize("url", ["nosuch://bucket/set", "s3://bucket/set"])
def test_urls_that_cannot_be_opened(config, url, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ShardError, match=r"data\.path .* cannot be opened"):
        staged(config(url))


def test_a_set_larger_than_the_cache(urls, config):
    with pytest.raises(ShardError, match=r"more than data\.cache_limit allows .*raise it"):
        staged(config(urls["one"], limit=1e-6))


def test_the_longest_unused_makes_room(urls, sets, config):

    limit = 2.5 * max(size_gb(folder) for folder in sets.values())
    one, two = (staged(config(urls[name], limit)) for name in ("one", "two"))
    for age, folder in ((100, two), (200, one)):
        os.utime(folder / ".complete", (age, age))
        let_go(folder)
    three = staged(config(urls["three"], limit))
    assert [(folder / ".complete").exists() for folder in (one, two, three)] == [True, False, True]
    assert not list(two.glob("shard-*"))


def test_sets_in_use_are_not_removed(urls, sets, config):
    limit = 1.5 * max(size_gb(folder) for folder in sets.values())
    one = staged(config(urls["one"], limit))
    with pytest.raises(ShardError, match=r"no room .*in use"):
        staged(config(urls["two"], limit))
    ShardDataset(one).verify_hash()
    let_go(one)
    assert ShardDataset(staged(config(urls["two"], limit)))


def _stage(url: str, cache: str, done) -> None:
    done.put(str(staged(DataConfig(path=url, cache=cache))))


def test_processes_of_a_node_share_one_copy(sets, tmp_path):
    """They start together; each gets the same whole folder, and nothing is fetched twice."""
    url = f"file://{sets['one']}"
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    workers = [context.Process(target=_stage, args=(url, str(tmp_path / "cache"), done)) for _ in range(2)]
    for worker in workers:
        worker.start()
    folders = {done.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(folders) == 1
    ShardDataset(folders.pop()).verify_hash()
    assert not list((tmp_path / "cache").glob("*/.*.partial"))
