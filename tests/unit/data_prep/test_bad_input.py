"""Bad input through the whole job: a clear error and nothing left behind, or a reason code for the record that is bad.

What is wrong inside one record of a format is tried in more ways by the tests of its source.
"""

import bz2
import gzip
import json
import pickle
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from data_prep.verify import verify
from rung.config.command import run_job
from rung.config.tree import PrepareConfig
from rung.orchestration.prepare import run_preparation
from tests.unit.data_prep.vasp_samples import outcar, outcar_step, vasprun, vasprun_step

XYZ = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:3 energy={} pbc="T T T"\n'
XYZ += "Na 0 0 0 0.1 0 0\nCl 2 2 2 -0.1 0 0\n"


def job(config: PrepareConfig) -> Path:
    return run_preparation(config).output / "summary.json"


@pytest.fixture
def run(tmp_path, capsys):
    """Run the job on a path; returns exit code and stderr."""

    def call(kind: str, path: object, **settings: object) -> tuple[int, str]:
        words = {"output": tmp_path / "out", "source.kind": kind, "source.path": path, "parallel.workers": 1} | settings
        code = run_job(PrepareConfig, job, [word for key, value in words.items() for word in (f"--{key}", str(value))])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def frames(mptrj_frame):
    """Text of an MPtrj file with a good frame and others."""

    def make(**others: object) -> str:
        return json.dumps({"mp-1": {"good": mptrj_frame(), **others}})

    return make


# Files that cannot be read as a whole: kind, name, content (made of a good MPtrj text), and what the error says.
BROKEN = {
    "empty file": ("mptrj", "raw.json", lambda good: b"", "raw.json is empty"),
    "white space only": ("matpes", "raw.json", lambda good: b" \n ", "no records"),
    "empty object": ("mptrj", "raw.json", lambda good: b"{}", "no records"),
    "materials without frames": ("mptrj", "raw.json", lambda good: b'{"mp-1": {}}', "no records"),
    "text": ("mptrj", "raw.json", lambda good: b"this is no JSON", r"raw.json, byte 0: not JSON"),
    "truncated in a record": ("mptrj", "raw.json", lambda good: good[:-200], r"raw.json, byte [\d,]+.*cut short"),
    "truncated list": ("matpes", "raw.json", lambda good: b"[1, 2", r"raw.json, byte .*cut short"),
    "brackets that do not match": ("mptrj", "raw.json", lambda good: good[:-1] + b"]", "closes nothing that is open"),
    "a missing comma": ("mptrj", "raw.json", lambda good: good.replace(b', "mp-9"', b' "mp-9"'), "not JSON: found"),
    "UTF-16": ("mptrj", "raw.json", lambda good: good.decode().encode("utf-16"), "not JSON"),
    "truncated gzip": ("mptrj", "raw.json.gz", lambda good: gzip.compress(good)[:-30], "gzip and ends too early"),
    "corrupt gzip": ("mptrj", "raw.json.gz", lambda good: _flipped(gzip.compress(good)), "cannot read .*raw.json.gz"),
    "truncated bzip2": ("mptrj", "raw.json.bz2", lambda good: bz2.compress(good)[:-30], "bzip2 and ends too early"),
    "gzip bomb": ("mptrj", "raw.json.gz", lambda good: gzip.compress(b"[" + b" " * (8 << 20)), "more than 500-fold"),
    "pickle": ("matpes", "raw.json", lambda good: pickle.dumps([1, {"a": 2}]), "Python pickle, which runs code"),
    "web page": ("matpes", "raw.json", lambda good: b"<!DOCTYPE html><p>404</p>", "a web page, not data"),
    "zip archive": ("matpes", "raw.json", lambda good: b"PK\x03\x04 and so on", "zip archive: unpack it first"),
    "xz": ("matpes", "raw.json", lambda good: b"\xfd7zXZ\x00\x00\x04", "compressed by xz"),
    "extxyz without counts": ("ase", "raw.extxyz", lambda good: b"hello\nworld\n", "frame 0: it begins with b'hello"),
    "extxyz cut in a frame": ("ase", "raw.extxyz", lambda good: XYZ.encode()[:-25], "ends inside frame 0"),
    "no ASE database": ("ase", "raw.db", lambda good: _sqlite(), "raw.db is no ASE database"),
    "damaged SQLite": ("ase", "raw.db", lambda good: b"SQLite format 3\0" + b"\1" * 500, "is no ASE database"),
    "no format of ASE": ("ase", "raw.unknown", lambda good: b"\1\2\3", r"ASE cannot read .*raw\.unknown"),
    "CSV of something else": ("atoms", "raw.csv", lambda good: b"a,b\n1,2\n", "is no table of atoms"),
    "CSV with a short line": ("atoms", "raw.csv", lambda good: b"Element,PBE\nH\n", "raw.csv, line 2: 1 columns"),
    "Latin-1 CSV": ("atoms", "raw.csv", lambda good: b"Element,PBE\n\xc5,1\n", "not UTF-8"),
    "atoms, not a data set": ("atoms", "raw.csv", lambda good: b"Element,PBE\nH,-1.1\n", "isolated_atom 1"),
    "no vasprun.xml": ("vasp", "vasprun.xml", lambda good: b"<xml>", "malformed 1.*is no vasprun.xml"),
    "vasprun.xml without steps": ("vasp", "vasprun.xml", lambda good: vasprun(["\n"]).encode(), "before its first one"),
    "no OUTCAR": ("vasp", "OUTCAR", lambda good: b"hello\n", "is no OUTCAR"),
    "another kind of data": ("matpes", "raw.json", lambda good: good, "missing_key"),
}


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def _sqlite() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("create table cars (id integer)")
        database.execute("insert into cars values (1)")
        return database.serialize()


@pytest.mark.parametrize("what", BROKEN)
def test_files(what, run, mptrj_frame, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.sources.raw_file._BOMB_BYTES", 1 << 20)
    kind, name, content, message = BROKEN[what]
    good = json.dumps({"mp-1": {"f": mptrj_frame()}, "mp-9": {"f": mptrj_frame()}}).encode()
    (tmp_path / name).write_bytes(content(good))
    _refused(*run(kind, tmp_path / name), message, tmp_path)


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("absent.json", "mptrj", r"source\.path .*absent\.json: No such file"),
        ("absent", "vasp", r"source\.path .*absent: No such file"),
        ("folder", "mptrj", "names no file of this kind"),
        ("folder", "vasp", r"cannot find a vasprun\.xml or an OUTCAR"),
        ("folder/*.json", "mptrj", "names no file of this kind"),
        ("nosuch://bucket/raw.json", "mptrj", "(?i)protocol.*nosuch"),
        ("memory://absent/raw.json", "mptrj", r"absent/raw\.json"),
    ],
)
def test_paths(path, kind, message, run, tmp_path):
    (tmp_path / "folder").mkdir()
    _refused(*run(kind, path if "://" in path else tmp_path / path), message, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source.functional": "PBF"}, "known are GGA"),
        ({"source.energy": "free"}, "source.kind 'mptrj' has corrected, uncorrected"),
        ({"source.materials": "x.json"}, "means nothing to source.kind"),
        ({"split.test": 0.95}, "leave nothing to train on"),
    ],
)
def test_settings_that_do_not_fit(settings, message, run, frames, tmp_path):
    (tmp_path / "raw.json").write_text(frames())
    _refused(*run("mptrj", tmp_path / "raw.json", **settings), message, tmp_path)


def _refused(code: int, shown: str, message: str, folder: Path) -> None:
    """One error and no traceback; neither the output nor a part of it is left."""
    assert code == 2
    assert "Traceback" not in shown
    (error,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert_matches(message, error)
    assert not (folder / "out").exists()
    assert not list(folder.glob(".*"))


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"


def _sites(frame: dict, **replaced: object) -> dict:
    sites = [dict(frame["structure"]["sites"][0]) | replaced, frame["structure"]["sites"][1]]
    return frame | {"structure": frame["structure"] | {"sites": sites}}


def _lattice(frame: dict, matrix: object) -> dict:
    return frame | {"structure": frame["structure"] | {"lattice": {"matrix": matrix}}}


# Bad records beside a good one: how a good frame is spoilt, the reason, and what the quarantine says.
SPOILT = {
    "a text for a number": (lambda f: f | {"energy_per_atom": "-4 eV"}, "malformed", "energy_per_atom"),
    "true for a number": (lambda f: f | {"energy_per_atom": True}, "malformed", "energy_per_atom"),
    "a list for a structure": (lambda f: f | {"structure": [1]}, "malformed", "structure"),
    "no structure": (lambda f: f | {"structure": None}, "missing_key", "structure"),
    "no labels": (lambda f: {"structure": f["structure"]}, "no_label", "no energy"),
    "NaN energy": (lambda f: f | {"energy_per_atom": float("nan")}, "not_finite", "energy"),
    "NaN force": (lambda f: f | {"force": [[float("nan")] * 3] * 2}, "not_finite", "forces"),
    "infinite stress": (lambda f: f | {"stress": [[float("inf")] * 3] * 3}, "not_finite", "stress"),
    "huge number": (lambda f: f | {"energy_per_atom": 10**400}, "not_finite", "energy_per_atom|energy"),
    "beyond single precision": (lambda f: f | {"force": [[1e39, 0, 0]] * 2}, "not_finite", "forces"),
    "forces of another cell": (lambda f: f | {"force": [[0.0] * 3] * 5}, "wrong_shape", r"forces has shape \(5, 3\)"),
    "swapped axes": (lambda f: f | {"force": np.zeros((3, 2)).tolist()}, "wrong_shape", r"shape \(3, 2\)"),
    "ragged forces": (lambda f: f | {"force": [[0.0, 0.0], [0.0]]}, "malformed", "forces"),
    "four components of stress": (lambda f: f | {"stress": [1, 2, 3, 4]}, "wrong_shape", "stress"),
    "forces in mRy/Bohr": (lambda f: f | {"force": [[2571.0, 0, 0]] * 2}, "force_outlier", "eV/Å; the limit"),
    "energy in meV": (lambda f: f | {"energy_per_atom": -4000.0}, "energy_outlier", "eV/atom from the median"),
    "stress in bar": (lambda f: f | {"stress": (1e5 * np.eye(3)).tolist()}, "stress_outlier", "GPa; the limit"),
    "lattice in nm": (lambda f: _lattice(f, (0.4 * np.eye(3)).tolist()), "overlapping_atoms", "Å apart"),
    "no volume": (lambda f: _lattice(f, [[4, 0, 0], [0, 4, 0], [4, 4, 0]]), "malformed", "span no volume"),
    "two lattice vectors": (lambda f: _lattice(f, [[4, 0, 0], [0, 4, 0]]), "wrong_shape", "lattice"),
    "zero lattice": (lambda f: _lattice(f, np.zeros((3, 3)).tolist()), "malformed", "span no volume"),
    "isolated atoms": (lambda f: _lattice(f, (30.0 * np.eye(3)).tolist()), "isolated_atom", "no neighbour"),
    "zero atoms": (lambda f: f | {"structure": f["structure"] | {"sites": []}}, "malformed", "sites"),
    "overlapping atoms": (lambda f: _sites(f, abc=[0.5, 0.5, 0.49]), "overlapping_atoms", "Å apart"),
    "unknown element": (lambda f: _sites(f, species=[{"element": "Xx", "occu": 1}]), "unknown_element", "Xx"),
    "element beyond Pu": (lambda f: _sites(f, species=[{"element": "Cm", "occu": 1}]), "unknown_element", "96"),
    "disorder": (lambda f: _sites(f, species=[{"element": "Na", "occu": 0.5}]), "disordered", "0.5"),
    "no coordinates": (lambda f: _sites(f, abc=None), "malformed", "coordinates"),
    "a slab": (
        lambda f: f | {"structure": f["structure"] | {"lattice": {"matrix": 4, "pbc": [True, True, False]}}},
        "malformed",
        "pbc",
    ),
    "the same again": (lambda f: _lattice(f, (4.0 * np.eye(3)).tolist()), "duplicate", "the same structure"),
    "not an object": (lambda f: 5, "malformed", "JSON object|expected"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_records(what, run, mptrj_frame, structure, tmp_path):
    """Twenty good records, so that there is a spread to judge by, and a bad one."""
    spoil, reason, detail = SPOILT[what]
    content = {f"mp-{m}": {"f": mptrj_frame(structure=structure(edge=4 + 0.01 * m))} for m in range(21)}
    content["mp-99"] = {"bad": spoil(mptrj_frame(structure=structure(edge=4.255)))}
    (tmp_path / "raw.json").write_text(json.dumps(content))
    _one_rejected(*run("mptrj", tmp_path / "raw.json"), ("mp-99", "bad", reason, detail), tmp_path)


TEXTS = {
    "a key twice": ('"mp-1": {{"f": {}, "f": {}}}', "duplicate", "came before"),
    "an id twice": ('"mp-1": {{"f": {}}}, "mp-1": {{"f": {}}}', "duplicate", "came before"),
    "a comma for a point": (
        '"mp-1": {{"g": {}, "f": {{"energy": 4,5}}}}, "mp-2": {{"g": {}}}',
        "malformed",
        "not JSON",
    ),
    "not UTF-8": ('"mp-1": {{"g": {}, "f": {{"a": "\udcff"}}}}, "mp-2": {{"g": {}}}', "missing_key|malformed", ""),
    "deeply nested": (
        '"mp-1": {{"g": {}, "f": ' + "[" * 5000 + "]" * 5000 + '}}, "mp-2": {{"g": {}}}',
        "malformed",
        "",
    ),
}


@pytest.mark.parametrize("what", TEXTS)
def test_texts(what, run, mptrj_frame, structure, tmp_path):
    pattern, reason, detail = TEXTS[what]
    two = (json.dumps(mptrj_frame(structure=structure(edge=edge))) for edge in (4.0, 4.1))
    text = "{" + pattern.format(*two) + "}"
    (tmp_path / "raw.json").write_bytes(text.encode(errors="surrogateescape"))
    _one_rejected(*run("mptrj", tmp_path / "raw.json"), ("mp-1", "f", reason, detail), tmp_path)


def _one_rejected(code: int, shown: str, expected: tuple[str, str, str, str], folder: Path) -> None:
    """The set is whole without the bad record, which the quarantine names."""
    assert code == 0, shown
    assert "Traceback" not in shown
    (line,) = [json.loads(text) for text in (folder / "out" / "quarantine.jsonl").read_text().splitlines()]
    for pattern, key in zip(expected, ("material_id", "frame_id", "reason", "detail"), strict=True):
        assert_matches(pattern, line[key])
    assert verify(folder / "out").problems == ()


FILES = {
    "vasprun.xml cut in a step": (
        "vasp",
        "run/vasprun.xml",
        lambda: vasprun()[:-400],
        "malformed",
        "inside ionic step 2",
    ),
    "stars for numbers": (
        "vasp",
        "run/vasprun.xml",
        lambda: vasprun([vasprun_step(-20.0), vasprun_step(-20.5).replace("-20.5", "****")]),
        "not_finite",
        "e_fr_energy",
    ),
    "OUTCAR cut in the middle": ("vasp", "run/OUTCAR", lambda: outcar()[:-300], "malformed", "inside ionic step 2"),
    "unconverged OUTCAR": (
        "vasp",
        "run/OUTCAR",
        lambda: outcar([outcar_step(1, -20.0), outcar_step(2, -20.5, reached=False)]),
        "unconverged",
        "electronic steps",
    ),
    "extxyz with bad columns": (
        "ase",
        "raw.extxyz",
        lambda: XYZ.format(-8.0) + XYZ.format(-8.1).replace("pos:R:3", "pos:R:7"),
        "malformed",
        "ASE cannot read the frame",
    ),
    "extxyz with a word for an energy": (
        "ase",
        "raw.extxyz",
        lambda: XYZ.format(-8.0) + XYZ.format("low"),
        "malformed",
        "energy",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_files_of_other_codes(what, run, tmp_path):
    kind, name, content, reason, detail = FILES[what]
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True)
    path.write_text(content())
    settings = {"source.functional": "PBE", "filters.functional_check": "off", "filters.duplicates": "keep"}
    _one_rejected(*run(kind, tmp_path / "raw", **settings), ("", "", reason, detail), tmp_path)
