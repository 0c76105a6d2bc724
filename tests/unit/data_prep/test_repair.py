"""repair makes damaged shards again, byte for byte, or says why it cannot."""

import shutil
from pathlib import Path

import pytest

from data_prep.convert import prepare
from data_prep.repair import RepairError, main, repair
from data_prep.verify import verify


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(raw, config_for) -> Path:
    config = config_for(raw, shards={"max_mb": 0.001})
    prepare(config)
    return Path(config.output)


@pytest.mark.parametrize("file", ["lmdb", "facts.npz", "index.npz"])
@pytest.mark.parametrize("shard", ["shard-00000", "shard-00001", "shard-00003"])
def test_a_damaged_file_comes_back(folder, shard, file):
    before = contents(folder)
    path = folder / f"{shard}.{file}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert repair(folder) == [shard]
    assert contents(folder) == before
    assert repair(folder) == []


def test_several_shards_and_a_source_that_moved(folder, raw):
    before = contents(folder)
    for path in folder.glob("shard-0000[023].*"):
        path.unlink()
    moved = shutil.move(raw, raw.with_name("elsewhere.json"))
    assert main([str(folder)]) == 2
    assert main([str(folder), "--source", str(moved)]) == 0
    assert contents(folder) == before
    assert verify(folder).problems == ()


def test_another_source_is_refused_and_nothing_is_replaced(folder, raw):
    (folder / "shard-00001.lmdb").unlink()
    before = contents(folder)
    raw.write_bytes(raw.read_bytes().replace(b"-6.0", b"-7.0"))
    with pytest.raises(RepairError, match="sha256"):
        repair(folder)
    assert contents(folder) == before
