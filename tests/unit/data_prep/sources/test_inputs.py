"""What source.path may name: files, folders, globs, lists, URLs; and what the manifest keeps of them."""

import re

import fsspec
import pytest

from data_prep.sources.inputs import FileSource, combined_hash, expand, read_materials, sizes_of, walk
from data_prep.sources.raw_file import BrokenFileError

JSON = re.compile(r"\.json$")


@pytest.fixture
def folder(tmp_path):
    for name in ("b.json", "a.json", "notes.txt", "deep/c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def remote():
    """A file system in memory, behind URLs."""
    system = fsspec.filesystem("memory")
    for name in ("b.json", "a.json", "deep/c.json"):
        system.pipe_file(f"/set/{name}", name.encode())
    yield "memory://set"
    system.rm("/set", recursive=True)


def test_folder_glob_and_list(folder):
    both = [str(folder / "a.json"), str(folder / "b.json")]
    assert expand([str(folder)], JSON) == both
    assert expand([f"{folder}/*.json"], JSON) == both
    assert expand([both[1], str(folder)], JSON) == [both[1], both[0]]
    assert expand([str(folder / "notes.txt")], JSON) == [str(folder / "notes.txt")]  # a file is what it is called


def test_urls(remote):
    assert [url.rpartition("/")[2] for url in expand([remote], JSON)] == ["a.json", "b.json"]
    assert [url.rpartition("/")[2] for url in expand([f"{remote}/*.json"], JSON)] == ["a.json", "b.json"]
    assert [(relative, size) for _, relative, size in walk(remote)] == [
        ("a.json", 6),
        ("b.json", 6),
        ("deep/c.json", 11),
    ]


def test_walk(folder):
    assert [relative for _, relative, _ in walk(str(folder))] == ["a.json", "b.json", "notes.txt", "deep/c.json"]
    assert [relative for _, relative, _ in walk(str(folder / "a.json"))] == ["a.json"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}/deep/none", "names no file of this kind|No such file"),
        ("{}/*.csv", "names no file of this kind"),
        ("nosuch://set", "nosuch"),
        ("memory://absent/a.json", "absent"),
        ("s3://bucket/a.json", "s3fs|credentials|bucket"),
    ],
)
def test_paths_that_name_nothing(folder, path, message):
    with pytest.raises(BrokenFileError, match=message):
        sizes_of(expand([path.format(folder)], JSON))
    assert (folder / "a.json").exists()


@pytest.mark.parametrize("form", ["local", "url"])
def test_facts_are_those_of_the_content(folder, remote, form):
    paths = expand([str(folder) if form == "local" else remote], JSON)
    source = FileSource("test", sizes_of(paths))
    facts = source.facts()
    assert facts["num_bytes"] == 12
    assert facts["files"] == 2
    assert facts["sha256"] == combined_hash([combined_hash_of(path) for path in paths])
    source.close()


def combined_hash_of(path):
    import hashlib

    with fsspec.open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def test_identity_changes_with_the_file(folder):
    before = FileSource("test", sizes_of(expand([str(folder)], JSON))).identity()
    assert FileSource("test", sizes_of(expand([str(folder)], JSON))).identity() == before
    (folder / "a.json").write_text("other!")
    assert FileSource("test", sizes_of(expand([str(folder)], JSON))).identity() != before


@pytest.mark.parametrize(
    ("text", "message"), [("[]", "must be a JSON object"), ('{"a": 1}', "must be"), ("{", "not JSON")]
)
def test_materials_that_are_none(tmp_path, text, message):
    (tmp_path / "materials.json").write_text(text)
    with pytest.raises(BrokenFileError, match=message):
        read_materials(str(tmp_path / "materials.json"))
