"""Which runs of VASP are below some folders, what they are called, and which material they belong to."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Final

from data_prep.sources.inputs import absolute, file_name, walk

_FILES: Final = {
    "vasprun": re.compile(r"^(?P<before>.*?)vasprun(?P<inside>.*?)\.xml(?P<after>\..+)?$"),
    "outcar": re.compile(r"^(?P<before>.*?)OUTCAR(?P<inside>)(?P<after>[._-].+)?$"),
    "incar": re.compile(r"^(?P<before>.*?)INCAR(?P<inside>)(?P<after>[._-].+)?$"),
}
"""The files of a run; what else is in the name tells the runs of one folder apart."""

_COMPRESSED: Final = re.compile(r"\.(gz|bz2)$", re.IGNORECASE)
_LONGEST_NAME: Final = 110  # characters; the record's limit less the number of a step


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its name, its material, and its files by kind."""

    name: str
    material: str
    files: dict[str, str]


def find_runs(roots: tuple[str, ...], materials: Mapping[str, str]) -> tuple[dict[str, int], list[Run]]:
    """Sizes of the files in bytes, and the runs in the order of their places.

    Args:
        roots: folders, local or URLs.
        materials: material id of each folder that does not go by its own name.

    Raises:
        BrokenFileError: a folder cannot be read.
    """
    sizes: dict[str, int] = {}
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for root in roots:
        label = file_name(absolute(root)) if len(roots) > 1 else ""
        for path, relative, size in walk(root):
            folder, _, name = relative.rpartition("/")
            kind, ending = _kind(_COMPRESSED.sub("", name))
            files = found.setdefault((label, folder, ending), {}) if kind else {}
            # The same file plain and compressed is one run.
            if kind and kind not in files:
                files[kind] = path
                sizes[path] = size
    found = {place: files for place, files in found.items() if files.keys() & {"vasprun", "outcar"}}
    read = {path for files in found.values() for path in files.values()}
    sizes = {path: size for path, size in sizes.items() if path in read}
    named = file_name(absolute(roots[0])) if len(roots) == 1 else ""
    return sizes, [
        _run(place, files, materials, named) for place, files in sorted(found.items(), key=lambda item: item[0])
    ]


def _kind(name: str) -> tuple[str, str]:
    """Which file of a run a name stands for (empty: none), and what tells its run from others in the folder."""
    for kind, pattern in _FILES.items():
        match = pattern.match(name)
        if match:
            return kind, f"{match['before']}{match['inside']}{match['after'] or ''}".strip("._-")
    return "", ""


def _run(place: tuple[str, str, str], files: Mapping[str, str], materials: Mapping[str, str], root: str) -> Run:
    label, folder, ending = place
    where = "/".join(part for part in (label, folder) if part)
    above = list(_with_parents(folder))
    mapped = next((materials[part] for part in chain(_with_parents(where), above) if part in materials), None)
    own = (folder or label or root).partition("/")[0]
    name = "/".join(part for part in (where or root, ending) if part)
    return Run(_short(name), _short(mapped or own), dict(files))


def _with_parents(folder: str) -> Iterator[str]:
    """A folder and all that hold it, innermost first."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _short(name: str) -> str:
    """A name that a record can keep: a long one loses its middle, and has a hash of the whole instead."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = blake2b(name.encode(), digest_size=6).hexdigest()
    ends = name.encode()[:30].decode(errors="ignore"), name.encode()[-60:].decode(errors="ignore")
    return f"{ends[0]}~{digest}~{ends[1]}"
