"""Reads a prepared data set again, every byte and every record, and says what is wrong where.

python -m data_prep.verify FOLDER
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from data_prep.facts import FactsTable, all_files_of
from data_prep.finish import decide_again
from data_prep.quarantine_file import QUARANTINE, read_quarantine
from rung.config.logs import configure_logging
from rung.config.preparation import GraphConfig
from rung.config.progress import followed
from rung.data.codec import ShardError
from rung.data.dataset import Manifest, ShardDataset, read_manifest
from rung.data.graph import count_angles
from rung.data.index import SPLITS, Index, split_name
from rung.data.record import MAX_ATOMIC_NUMBER, GraphRecord
from rung.data.shard import ShardInfo, ShardReader, data_path, file_sha256

logger = logging.getLogger("data_prep.verify")  # also when it is run as a program

_READ_AT_ONCE: Final = 256
_TOLERANCE: Final = 1e-6  # Å; a bond at the cutoff to rounding is inside


@dataclass(frozen=True)
class Verification:
    """What the check of a data set found.

    Attributes:
        folder: of the data set.
        num_records: records that were read and decoded.
        problems: one sentence for each thing that is wrong; none if all is well.
    """

    folder: Path
    num_records: int
    problems: tuple[str, ...]

    def require_sound(self) -> None:
        """Refuse a set with problems.

        Raises:
            ShardError: names them.
        """
        if self.problems:
            raise ShardError(f"{self.folder} is damaged: {'; '.join(self.problems)}. Prepare it again")


def verify(folder: Path, most_problems: int = 20) -> Verification:
    """Check hashes, counts, the split and every record of a prepared data set.

    Args:
        folder: that holds manifest.json.
        most_problems: after so many, the rest is not looked at.

    Raises:
        ShardError: the folder holds no data set of a version that can be read.
    """
    manifest, _ = read_manifest(folder)
    checks = _Checks(folder, manifest)
    problems: list[str] = []
    for problem in checks.run():
        problems.append(problem)
        if len(problems) == most_problems:
            problems.append("and maybe more: the check stopped here")
            break
    return Verification(folder, checks.num_records, tuple(problems))


def file_problems(folder: Path, manifest: Manifest) -> Iterator[tuple[ShardInfo, str]]:
    """What is wrong with the files of each shard, by their SHA-256."""
    files = [(shard, *file) for shard in manifest.shards for file in all_files_of(folder, shard).items()]
    sizes = {path: path.stat().st_size for _, path, _ in files if path.is_file()}
    with followed("checking files", sum(sizes.values()), "B") as advance:
        for shard, path, sha256 in files:
            if path not in sizes:
                yield shard, f"{path.name} is missing"
                continue
            if file_sha256(path) != sha256:
                yield shard, f"{path.name} has other content than when it was written (SHA-256 differs)"
            advance(sizes[path])


class _Checks:
    """The checks of one data set; each yields the problems that it finds."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self.num_records = 0

    def run(self) -> Iterator[str]:
        """All checks, from the files to their content."""
        damaged = [problem for _, problem in file_problems(self._folder, self._manifest)]
        yield from damaged
        yield from self._counts()
        if damaged:
            return  # reading on would report the same damage again, record by record
        try:
            dataset = ShardDataset(self._folder)
        except ShardError as error:
            yield str(error)
            return
        yield from self._splits(dataset.index)
        with followed("checking records", len(dataset), "record") as advance:
            for shard, first in self._shards_with_first_id():
                yield from self._records(shard, first, dataset.index, advance)

    def _counts(self) -> Iterator[str]:
        counts = self._manifest.counts
        rejected = Counter(counts["rejected"])
        stored = sum(shard.num_records for shard in self._manifest.shards)
        if counts["stored"] != stored:
            yield f"the manifest counts {counts['stored']} stored records, its shards {stored}"
        if counts["read"] != counts["kept"] + rejected.total():
            yield f"{counts['read']} records read are not {counts['kept']} kept and {rejected.total()} rejected"
        try:
            listed = Counter(line["reason"].value for line in read_quarantine(self._folder))
        except ShardError as error:
            yield str(error)
            return
        if listed != rejected:
            yield f"{QUARANTINE} lists {dict(listed)}, the manifest counts {dict(rejected)}"

    def _splits(self, index: Index) -> Iterator[str]:
        facts = FactsTable.load(self._folder, [shard.name for shard in self._manifest.shards])
        expected = decide_again(self._manifest, index, facts).split
        wrong = np.flatnonzero(expected != index.split)
        for row in wrong[:1]:
            found, right = (split_name(int(split)) for split in (index.split[row], expected[row]))
            yield (
                f"{len(wrong)} records are not where filters and split put them,"
                f" the first is {index.record_names([row])[0]} in {found} instead of {right}"
            )
        for number, name in enumerate(SPLITS):
            found = int(np.count_nonzero(index.split == number))
            if self._manifest.split["records"][name] != found:
                yield f"the manifest counts {self._manifest.split['records'][name]} {name} records, the index {found}"

    def _shards_with_first_id(self) -> Iterator[tuple[ShardInfo, int]]:
        first = 0
        for shard in self._manifest.shards:
            yield shard, first
            first += shard.num_records

    def _records(self, shard: ShardInfo, first: int, index: Index, advance: Callable[[int], object]) -> Iterator[str]:
        reader = ShardReader(data_path(self._folder, shard.name).absolute(), first)
        for start in range(0, shard.num_records, _READ_AT_ONCE):
            positions = range(start, min(start + _READ_AT_ONCE, shard.num_records))
            try:
                records = reader.read(positions)
            except ShardError as error:
                yield str(error)
                continue
            self.num_records += len(records)
            advance(len(records))
            for record in records:
                for problem in _record_problems(record, index, self._manifest.graph):
                    yield f"record {record.record_id} ({index.record_names([record.record_id])[0]}): {problem}"


def _record_problems(record: GraphRecord, index: Index, cutoffs: GraphConfig) -> Iterator[str]:
    """Check one record by itself and against its row of the index."""
    for column in ("num_atoms", "num_bonds", "num_short_bonds", "num_angles", "labels"):
        found, expected = int(getattr(record, column)), int(getattr(index, column)[record.record_id])
        if found != expected:
            yield f"{column} is {found}, its index says {expected}"
    if record.energy is not None and record.energy != index.energy[record.record_id]:
        yield f"energy is {record.energy} eV, its index says {index.energy[record.record_id]} eV"
    for name in ("lattice", "frac_coords", "forces", "stress", "magmoms"):
        values = getattr(record, name)
        if values is not None and not np.isfinite(values).all():
            yield f"{name} holds a value that is not finite"
    numbers = record.atomic_numbers
    if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
        yield f"atomic numbers from {numbers.min()} to {numbers.max()}; allowed are 1 to {MAX_ATOMIC_NUMBER}"
    if record.num_bonds == 0 or record.bond_atoms.max() >= record.num_atoms:
        yield "its bonds name atoms that it does not have"
        return
    yield from _bond_problems(record, cutoffs)


def _bond_problems(record: GraphRecord, cutoffs: GraphConfig) -> Iterator[str]:
    """Measure the stored bonds against the cutoffs."""
    first, second = record.bond_atoms.T
    vectors = (record.frac_coords[first] - record.frac_coords[second] - record.bond_image) @ record.lattice
    lengths = np.linalg.norm(vectors, axis=1)
    if lengths.max() > cutoffs.atom_cutoff + _TOLERANCE:
        yield f"a bond of {lengths.max():.4f} Å is longer than the cutoff, {cutoffs.atom_cutoff} Å"
    short = lengths < cutoffs.bond_cutoff
    # Bonds at the cutoff to rounding may have fallen on either side.
    clear = np.abs(lengths - cutoffs.bond_cutoff) > _TOLERANCE
    if not np.array_equal(short[clear], (np.arange(record.num_bonds) < record.num_short_bonds)[clear]):
        yield f"its bonds are not sorted into shorter and longer than {cutoffs.bond_cutoff} Å"
    if count_angles(record.bond_atoms[: record.num_short_bonds]) != record.num_angles:
        yield f"num_angles is {record.num_angles}, which its short bonds do not make"


def main(argv: Sequence[str] | None = None) -> int:
    """Check the folder named on the command line; 0 if it is sound, 1 if not, 2 if it is no data set."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.verify", description="Check a prepared data set.")
    parser.add_argument("folder", type=Path, help="folder that prepare_data wrote")
    configure_logging()
    folder: Path = parser.parse_args(argv).folder
    try:
        result = verify(folder)
    except ShardError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 2
    for problem in result.problems:
        logger.error("%s", problem)
    if not result.problems:
        logger.info("%s is sound: %s records read and checked", folder, f"{result.num_records:,}")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
