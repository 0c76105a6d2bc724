"""The index of a shard: what each record holds, in columns, so that nothing but training has to read the records."""

import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from rung.data.codec import ShardError
from rung.data.record import MAX_ATOMIC_NUMBER, GraphRecord, StructureRecord

SPLITS: Final = ("train", "validation", "test")
"""Parts of a data set; the index stores the position in this tuple."""

REJECTED: Final = 255
"""Split of a record that is stored but not used; the quarantine says why."""

_COUNTS: Final[Mapping[str, str]] = {
    "split": "|u1",
    "labels": "|u1",
    "num_atoms": "<i4",
    "num_bonds": "<i4",
    "num_short_bonds": "<i4",
    "num_angles": "<i4",
}
_NAMES: Final = ("source", "material_id", "frame_id", "functional")
# Distinct elements of each record, and then the elements of all records and how many atoms there are of each.
_COMPOSITION: Final[Mapping[str, str]] = {"num_elements": "|u1", "elements": "|u1", "element_atoms": "<u2"}


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """The row of one record, without its split; what is not explained here is as in `Index`.

    Attributes:
        energy: total, eV; 0 where `labels` says there is none.
        elements: distinct atomic numbers, ascending.
        element_atoms: atoms of each of these elements.
    """

    labels: int
    num_atoms: int
    num_bonds: int
    num_short_bonds: int
    num_angles: int
    source: str
    material_id: str
    frame_id: str
    functional: str
    energy: float
    elements: tuple[int, ...]
    element_atoms: tuple[int, ...]

    @classmethod
    def of(cls, record: StructureRecord, graph: GraphRecord) -> Self:
        """Collect the row from a record before and after its graph was built."""
        elements, atoms = np.unique(record.atomic_numbers, return_counts=True)
        return cls(
            labels=int(record.labels),
            num_atoms=record.num_atoms,
            num_bonds=graph.num_bonds,
            num_short_bonds=graph.num_short_bonds,
            num_angles=graph.num_angles,
            source=record.source,
            material_id=record.material_id,
            frame_id=record.frame_id,
            functional=record.functional,
            energy=0.0 if record.energy is None else record.energy,
            elements=tuple(elements.tolist()),
            element_atoms=tuple(atoms.tolist()),
        )


def split_name(split: int) -> str:
    """Name of a value of `Index.split`."""
    return "rejected" if split == REJECTED else SPLITS[split]


def index_path(folder: Path, name: str) -> Path:
    """Index file of a shard."""
    return folder / f"{name}.index.npz"


def write_index(path: Path, rows: Sequence[IndexRow]) -> None:
    """Write the index of a shard whose records have no split yet; see `write_splits`."""
    columns = {name: [getattr(row, name) for row in rows] for name in (*_COUNTS, *_NAMES) if name != "split"}
    columns["split"] = [REJECTED] * len(rows)
    arrays: dict[str, NDArray] = {name: np.array(columns[name], dtype=kind) for name, kind in _COUNTS.items()}
    arrays |= {name: np.array([text.encode() for text in columns[name]], dtype=np.bytes_) for name in _NAMES}
    arrays["energy"] = np.array([row.energy for row in rows], dtype="<f8")
    composition = {
        "num_elements": [len(row.elements) for row in rows],
        "elements": [number for row in rows for number in row.elements],
        "element_atoms": [count for row in rows for count in row.element_atoms],
    }
    arrays |= {name: np.array(composition[name], dtype=kind) for name, kind in _COMPOSITION.items()}
    write_columns(path, arrays)


def write_splits(path: Path, splits: NDArray[np.uint8]) -> None:
    """Replace the splits of the records in an index, whole or not at all.

    Args:
        path: the index.
        splits: (n,) position in `SPLITS`, or `REJECTED`.

    Raises:
        ShardError: the index cannot be read.
        ValueError: its records are not n.
    """
    arrays = read_columns(path, (*_COUNTS, *_NAMES, "energy", *_COMPOSITION))
    if splits.shape != arrays["split"].shape:
        raise ValueError(f"{path} has {len(arrays['split'])} records; found splits of shape {splits.shape}")
    temporary = path.with_name(f".{path.name}.partial")
    write_columns(temporary, arrays | {"split": splits.astype(_COUNTS["split"])})
    temporary.replace(path)


def write_columns(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write arrays to one file and bring it to disk. Its bytes depend on them alone: the members carry a fixed time."""
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


class Index:
    """The indices of all shards of a data set as one, a row per record id.

    Counts are read at once. Names, energies and compositions are read when first asked for: they are many times larger.

    Args:
        folder: of the data set.
        shards: their names, in the order of the record ids.

    Attributes:
        shard_sizes: records of each shard.
        split: (n,) uint8, position in `SPLITS`, or `REJECTED`.
        labels: (n,) uint8, flags of `rung.data.fields.Labels`.
        num_atoms: (n,) int32.
        num_bonds: (n,) int32, undirected bonds.
        num_short_bonds: (n,) int32, bonds below the bond cutoff.
        num_angles: (n,) int32.

    Raises:
        ShardError: an index is missing or damaged; for columns that are read later, on their first use.
    """

    def __init__(self, folder: Path, shards: Sequence[str]) -> None:
        self._folder = folder
        self._shards = tuple(shards)
        counts = [read_columns(index_path(folder, shard), tuple(_COUNTS)) for shard in shards]
        self.shard_sizes: tuple[int, ...] = tuple(len(part["split"]) for part in counts)
        joined = {name: np.concatenate([part[name] for part in counts]) for name in _COUNTS}
        self.split: NDArray[np.uint8] = joined["split"]
        self.labels: NDArray[np.uint8] = joined["labels"]
        self.num_atoms: NDArray[np.int32] = joined["num_atoms"]
        self.num_bonds: NDArray[np.int32] = joined["num_bonds"]
        self.num_short_bonds: NDArray[np.int32] = joined["num_short_bonds"]
        self.num_angles: NDArray[np.int32] = joined["num_angles"]

    def __len__(self) -> int:
        return len(self.split)

    @cached_property
    def source(self) -> NDArray[np.bytes_]:
        """Data set of each record: (n,), UTF-8."""
        return self._column("source")

    @cached_property
    def material_id(self) -> NDArray[np.bytes_]:
        """Material of each record: (n,), UTF-8."""
        return self._column("material_id")

    @cached_property
    def frame_id(self) -> NDArray[np.bytes_]:
        """Frame of each record within its material: (n,), UTF-8."""
        return self._column("frame_id")

    @cached_property
    def functional(self) -> NDArray[np.bytes_]:
        """Functional of each record: (n,), UTF-8."""
        return self._column("functional")

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """Total energy of each record: (n,), eV; 0 where `labels` says there is none."""
        return self._column("energy")

    def record_names(self, record_ids: Sequence[int] | NDArray[np.integer]) -> list[str]:
        """Names for messages: material and frame of each record."""
        ids = np.asarray(record_ids, dtype=np.int64)
        pairs = zip(self.material_id[ids].tolist(), self.frame_id[ids].tolist(), strict=True)
        return [f"{material.decode()}/{frame.decode()}" for material, frame in pairs]

    def compositions(self, record_ids: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Count the atoms of each element: (len(record_ids), 94), column Z - 1."""
        num_elements, elements, atoms = self._composition
        counts = num_elements[record_ids].astype(np.int64)
        ends = np.cumsum(num_elements, dtype=np.int64)[record_ids]
        rows = np.repeat(np.arange(len(record_ids)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.repeat(ends - counts, counts) + within
        table = np.zeros((len(record_ids), MAX_ATOMIC_NUMBER), dtype=np.uint16)
        table[rows, elements[entries].astype(np.int64) - 1] = atoms[entries]
        return table

    @cached_property
    def _composition(self) -> tuple[NDArray, NDArray, NDArray]:
        return self._column("num_elements"), self._column("elements"), self._column("element_atoms")

    def _column(self, name: str) -> NDArray:
        return np.concatenate([read_columns(index_path(self._folder, shard), (name,))[name] for shard in self._shards])


_ZIP_ERRORS: Final = (zipfile.BadZipFile, zlib.error, NotImplementedError)  # the last: of a method it does not know
_NUMPY_ERRORS: Final = (KeyError, ValueError, tokenize.TokenError)


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, NDArray]:
    """Read arrays that `write_columns` wrote.

    Raises:
        ShardError: the file is missing or damaged, or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as index:
            return {column: index[column] for column in columns}
    except (OSError, EOFError, *_ZIP_ERRORS, *_NUMPY_ERRORS) as error:
        raise ShardError(f"{path} cannot be read ({error}): prepare the data set again") from error
