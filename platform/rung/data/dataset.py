"""A prepared data set: a folder of shards and the manifest that lists them."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from rung.config.preparation import GraphConfig
from rung.config.tree import SplitName
from rung.data.codec import FORMAT_VERSION, ShardError
from rung.data.fields import Labels
from rung.data.index import SPLITS, Index, index_path
from rung.data.record import GraphRecord
from rung.data.shard import ShardInfo, ShardReader, data_path, file_sha256

MANIFEST_NAME: Final = "manifest.json"


class Manifest(BaseModel):
    """What a data set consists of. It is written last: a folder without it is not a data set.

    Attributes:
        format_version: see `rung.data.codec.FORMAT_VERSION`.
        kind: tells the file from other JSON.
        graph: cutoffs of the stored graphs.
        shards: in the order of the record ids.
        counts: how many records were read, kept and refused, and why.
        source: where the records come from.
        split: how they were split.
        functionals: records in use, by functional.
        elements: records in use that contain each element.
        labels: statistics of each label of the records in use.
        references: elemental references fitted to the training records of each functional, as `ReferenceFit.to_json`.
        restored: ids of records that were put back from the quarantine.
        config: of the preparation.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    format_version: int = FORMAT_VERSION
    kind: Literal["rung-dataset"] = "rung-dataset"
    graph: GraphConfig
    shards: tuple[ShardInfo, ...]
    counts: dict[str, Any] = {}
    source: dict[str, Any] = {}
    split: dict[str, Any] = {}
    functionals: dict[str, int] = {}
    elements: dict[str, int] = {}
    labels: dict[str, Any] = {}
    references: dict[str, Any] = {}
    restored: tuple[int, ...] = ()
    config: dict[str, Any] = {}


def files_of(folder: Path, shard: ShardInfo) -> dict[Path, str]:
    """Files of a shard that training reads, each with its SHA-256."""
    return {data_path(folder, shard.name): shard.lmdb_sha256, index_path(folder, shard.name): shard.index_sha256}


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Read the manifest of a data set; returns it and the SHA-256 of its bytes, which identifies the data set.

    Raises:
        ShardError: if there is none, or it is not one that this version of Rung reads.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        missing = "there is no such folder" if not folder.is_dir() else f"the folder has no {MANIFEST_NAME}"
        raise ShardError(f"{folder} is no prepared data set ({missing}): run prepare_data, or correct data.path")
    text = path.read_bytes()
    return parse_manifest(text, str(path)), hashlib.sha256(text).hexdigest()


def parse_manifest(text: bytes, path: str) -> Manifest:
    """Read the content of a manifest; `path` is for messages.

    Raises:
        ShardError: it is not one that this version of Rung reads.
    """
    try:
        version = _Version.model_validate_json(text).format_version
        if version != FORMAT_VERSION:
            cure = "update Rung" if version > FORMAT_VERSION else "prepare the data again"
            raise ShardError(f"{path} has format {version}; this version of Rung reads format {FORMAT_VERSION}: {cure}")
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ShardError(f"{path} is not a manifest that Rung wrote: {error}") from error
    if not manifest.shards:
        raise ShardError(f"{path} lists no shards, so there are no records: prepare the data again")
    for shard in manifest.shards:
        if Path(shard.name).name != shard.name or shard.name in ("", ".", ".."):
            raise ShardError(f"{path} lists the shard {shard.name!r}; a shard's name is that of a file beside it")
    return manifest


class ShardDataset:
    """Records by id, 0 to len - 1 through all shards, and the index of what they hold.

    It can be pickled and used after a fork; the shards are opened on first use in each process.

    Args:
        path: folder that holds the manifest.
        cutoffs: of the model; checked against the stored ones if given.

    Raises:
        ShardError: if the folder is not a complete data set, or holds graphs with other cutoffs.
    """

    def __init__(self, path: Path | str, cutoffs: GraphConfig | None = None) -> None:
        self.path = Path(path).expanduser().resolve()
        self.manifest, self.manifest_hash = read_manifest(self.path)
        if cutoffs is not None:
            self.check_cutoffs(cutoffs)
        for shard in self.manifest.shards:
            _check_present(data_path(self.path, shard.name))
            _check_present(index_path(self.path, shard.name))
        self.index = Index(self.path, [shard.name for shard in self.manifest.shards])
        self._check_sizes()
        self.records = RecordReader.of(self.path, self.manifest)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, record_id: int) -> GraphRecord:
        return self.records.read([record_id])[0]

    def select(self, split: SplitName, share: float = 1.0) -> NDArray[np.int64]:
        """Ids (n,) of the records of one split, ascending.

        Args:
            split: of the data set.
            share: of the split's materials to take. A smaller share is part of a larger one, and a material that is
                in it stays in it when the data set grows.
        """
        ids = np.flatnonzero(self.index.split == SPLITS.index(split))
        if share == 1.0:
            return ids
        materials, rows = np.unique(self.index.material_id[ids], return_inverse=True)
        taken = np.array([_position(material) < share for material in materials.tolist()], dtype=bool)
        return ids[taken[rows]]

    def records_of(self, shards: Collection[str]) -> NDArray[np.int64]:
        """Ids (n,) of the records in the named shards, ascending."""
        sizes = [info.num_records for info in self.manifest.shards]
        inside = [info.name in shards for info in self.manifest.shards]
        return np.flatnonzero(np.repeat(inside, sizes))

    def check_cutoffs(self, wanted: GraphConfig) -> None:
        """Refuse a model whose cutoffs are not those of the stored graphs.

        Raises:
            ShardError: they differ.
        """
        stored = self.manifest.graph
        if (stored.atom_cutoff, stored.bond_cutoff) != (wanted.atom_cutoff, wanted.bond_cutoff):
            raise ShardError(
                f"{self.path} has atom_cutoff {stored.atom_cutoff} Å and bond_cutoff {stored.bond_cutoff} Å, but the"
                f" model has {wanted.atom_cutoff} Å and {wanted.bond_cutoff} Å: prepare the data again with the model's"
                " cutoffs (graph.atom_cutoff, graph.bond_cutoff), or give the model those of the data (model.graph)"
            )

    def record_names(self, record_ids: Sequence[int]) -> list[str]:
        """Names for messages: material and frame of each record."""
        return self.index.record_names(record_ids)

    def compositions(self, record_ids: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Count the atoms of each element: (len(record_ids), 94), column Z - 1."""
        return self.index.compositions(record_ids)

    def compositions_and_energies(
        self, record_ids: NDArray[np.integer]
    ) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
        """Compositions (n, 94) and total energies (n,), eV, of those of the records that have an energy."""
        labelled = record_ids[self.index.labels[record_ids] & Labels.ENERGY > 0]
        return self.index.compositions(labelled), self.index.energy[labelled]

    def verify_hash(self) -> None:
        """Read every file and compare its SHA-256 with the manifest's.

        Raises:
            ShardError: naming the first file that differs.
        """
        for shard in self.manifest.shards:
            for path, sha256 in files_of(self.path, shard).items():
                if (found := file_sha256(path)) != sha256:
                    raise ShardError(f"{path} has SHA-256 {found}, its manifest says {sha256}: prepare the data again")

    def _check_sizes(self) -> None:
        for shard, size in zip(self.manifest.shards, self.index.shard_sizes, strict=True):
            if shard.num_records != size:
                raise ShardError(
                    f"the index of {shard.name} in {self.path} has {size} records, the manifest says"
                    f" {shard.num_records}: prepare the data again"
                )


@dataclass(frozen=True)
class RecordReader:
    """Reads records by their ids; all that a worker process needs of a data set.

    Attributes:
        shards: the shards, in order.
        ends: (num_shards,) the id after the last record of each.
    """

    shards: tuple[ShardReader, ...]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> "RecordReader":
        """Readers for the shards that a manifest lists."""
        sizes = [shard.num_records for shard in manifest.shards]
        ends = np.cumsum(sizes, dtype=np.int64)
        first_ids = (ends - sizes).tolist()
        paths = [data_path(folder, shard.name) for shard in manifest.shards]
        return cls(tuple(ShardReader(path, first) for path, first in zip(paths, first_ids, strict=True)), ends)

    def read(self, record_ids: Sequence[int] | NDArray[np.integer]) -> list[GraphRecord]:
        """Read records in the order of the ids; each shard is visited once.

        Raises:
            IndexError: for an id that the data set does not have.
            DamagedShardError: if a record is missing or damaged.
        """
        ids = np.asarray(record_ids, dtype=np.int64)
        num_records = int(self.ends[-1])
        if len(ids) and (ids.min() < 0 or ids.max() >= num_records):
            raise IndexError(
                f"record ids {ids.min()} to {ids.max()} asked for; the data set has 0 to {num_records - 1}"
            )
        order = np.argsort(ids, kind="stable")
        shard_of = np.searchsorted(self.ends, ids[order], side="right")
        group_starts = np.flatnonzero(np.diff(shard_of, prepend=-1))
        by_id: list[GraphRecord] = []
        for number, group in zip(shard_of[group_starts], np.split(ids[order], group_starts)[1:], strict=True):
            shard = self.shards[number]
            by_id += shard.read((group - shard.first_id).tolist())
        return [by_id[place] for place in np.argsort(order)]


def _position(material: bytes) -> float:
    """Where a material stands among all, in [0, 1): a hash of its name, and not the one that splits the data."""
    return int.from_bytes(hashlib.blake2b(material, digest_size=8, person=b"rung-share").digest(), "big") / 2**64


def _check_present(path: Path) -> None:
    if not path.is_file() or path.stat().st_size == 0:
        state = "is empty" if path.is_file() else "is missing"
        raise ShardError(f"{path} {state}: copy the whole folder, or prepare the data again")


class _Version(BaseModel):
    """The one key of a manifest that every format has."""

    format_version: int
