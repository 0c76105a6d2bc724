"""Raw files: gzip is recognised by content, damage is named, the hash is that of the file."""

import gzip
import hashlib

import pytest

from data_prep.sources.raw_file import BrokenFileError, RawFile

CONTENT = b'{"a": 1}' * 50_000


def read_all(file: RawFile) -> bytes:
    blocks = []
    while block := file.read(10_000):
        blocks.append(block)
    return b"".join(blocks)


@pytest.mark.parametrize(("name", "compress"), [("a.json", True), ("a.json.gz", True), ("a.json.gz", False)])
def test_content_decides_about_gzip(tmp_path, name, compress):
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONTENT) if compress else CONTENT)
    with RawFile(path) as file:
        assert file.is_gzip is compress
        assert file.peek(20) == CONTENT[:20]
        assert read_all(file) == CONTENT
        assert file.position == file.num_bytes == path.stat().st_size
        assert file.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_hash_covers_what_was_not_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(CONTENT * 10)
    with RawFile(path) as file:
        file.read(10)
        assert file.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_members_in_one_gzip(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one") + gzip.compress(b"two"))
    with RawFile(path) as file:
        assert read_all(file) == b"onetwo"


def test_truncated_gzip(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(CONTENT)[:-20])
    with RawFile(path) as file, pytest.raises(BrokenFileError, match=r"a\.gz is gzip and ends too early"):
        read_all(file)


def test_corrupt_gzip(tmp_path):
    path = tmp_path / "a.gz"
    damaged = bytearray(gzip.compress(CONTENT))
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with RawFile(path) as file, pytest.raises(BrokenFileError, match="cannot read"):
        read_all(file)


def test_absent_empty_and_folder(tmp_path):
    with pytest.raises(BrokenFileError, match=r"source\.path .* No such file"):
        RawFile(tmp_path / "absent.json")
    (tmp_path / "empty.json").touch()
    with pytest.raises(BrokenFileError, match="is empty"):
        RawFile(tmp_path / "empty.json")
    with pytest.raises(BrokenFileError, match="directory"):
        RawFile(tmp_path)
