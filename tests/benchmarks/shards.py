"""Stored size, reading speed and memory of shards.

    python -m tests.benchmarks.shards --json figures.json

A labelled record on disk (LMDB pages, index and all) is compared with the file that chgnet saves for the same graph,
which has no labels. The cells are as large as MPtrj's. Reading is by random ids in batches of 40, decoding included, on
one core, from a warm page cache; again with the same records in 100 times as many shards, and by two processes at once
that read the same shards (the slower of them, beside one alone).
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy reads it

import numpy as np
from chgnet.graph import CrystalGraphConverter
from pymatgen.core import Structure

from rung.config.preparation import GraphConfig
from rung.data.batch import collate
from rung.data.dataset import MANIFEST_NAME, Manifest, ShardDataset
from rung.data.record import StructureRecord
from rung.data.shard import ShardEntry, ShardWriter
from tests.benchmarks.cells import cells, sized_like_mptrj
from tests.benchmarks.figures import Figures, best_seconds, run, status_mib

_CUTOFFS = GraphConfig()
_NUM_CELLS, _NUM_RECORDS, _PER_SHARD, _BATCH = 150, 6000, 2000, 40
_REPEATS = 5


def labelled(cell: Structure, number: int) -> StructureRecord:
    """Give a cell every label; their values do not matter here."""
    rng = np.random.default_rng(number)
    return StructureRecord(
        atomic_numbers=np.array(cell.atomic_numbers),
        lattice=cell.lattice.matrix,
        frac_coords=cell.frac_coords,
        energy=rng.normal(),
        forces=rng.normal(size=(len(cell), 3)),
        stress=rng.normal(size=(3, 3)),
        magmoms=rng.random(len(cell)),
        source="benchmark",
        material_id=f"mp-{number % 5000}",
        frame_id=f"mp-{number}-0-{number % 17}",
        functional="GGA",
    )


def write(folder: Path, entries: Sequence[ShardEntry], per_shard: int) -> None:
    """Write a data set."""
    shards = []
    for number, start in enumerate(range(0, len(entries), per_shard)):
        with ShardWriter(folder, f"shard-{number:05d}") as writer:
            for entry in entries[start : start + per_shard]:
                writer.add(entry)
            shards.append(writer.finish())
    (folder / MANIFEST_NAME).write_text(Manifest(graph=_CUTOFFS, shards=tuple(shards)).model_dump_json())


def read_all(dataset: ShardDataset, *, collated: bool) -> None:
    """Read every record once, in random order."""
    order = np.random.default_rng(0).permutation(len(dataset))
    for start in range(0, len(order), _BATCH):
        records = dataset.records.read(order[start : start + _BATCH])
        if collated:
            collate(records)


def speed_of_readers(folder: Path, number: int) -> float:
    """Records per second of the slowest of so many processes that read at the same time."""
    with multiprocessing.get_context("spawn").Pool(number) as pool:
        return min(pool.map(_speed, [folder] * number, chunksize=1))


def _speed(folder: Path) -> float:
    dataset = ShardDataset(folder)
    return _NUM_RECORDS / best_seconds(lambda: read_all(dataset, collated=False), _REPEATS)


def saved_by_chgnet(structures: Sequence[Structure], folder: Path) -> int:
    """Bytes of the files that chgnet saves for these cells."""
    convert = CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3)
    for number, cell in enumerate(structures):
        convert(cell).save(fname=f"{number}.pt", save_dir=str(folder))
    return sum(path.stat().st_size for path in folder.iterdir())


def memory_of_reading(folder: Path) -> tuple[float, float]:
    """Peak memory of a fresh process that reads every record, and how much it grew by, MiB."""
    command = [sys.executable, "-m", "tests.benchmarks.shards", "--read", str(folder)]
    before, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(peak), float(peak) - float(before)


def measure() -> Figures:
    """Measure in a temporary folder."""
    found, origin = cells()
    structures = sized_like_mptrj(found, _NUM_CELLS)
    with tempfile.TemporaryDirectory() as name:
        stored, saved, scattered = (Path(name) / part for part in ("shards", "chgnet", "many"))
        for folder in (stored, saved, scattered):
            folder.mkdir()
        entries = [ShardEntry.of(labelled(cell, number), _CUTOFFS) for number, cell in enumerate(structures)]
        many = [entries[number % len(entries)] for number in range(_NUM_RECORDS)]
        start = time.perf_counter()
        write(stored, many, _PER_SHARD)
        write_seconds = time.perf_counter() - start
        write(scattered, many, _PER_SHARD // 100)
        stored_bytes = sum(path.stat().st_size for path in stored.iterdir()) / _NUM_RECORDS
        chgnet_bytes = saved_by_chgnet(structures, saved) / len(structures)
        dataset, in_many = ShardDataset(stored), ShardDataset(scattered)
        speeds = {number: speed_of_readers(stored, number) for number in (1, 2)}
        peak, growth = memory_of_reading(stored)
        return {
            "bytes_ratio_vs_chgnet": chgnet_bytes / stored_bytes,
            "reads_per_second": _NUM_RECORDS / best_seconds(lambda: read_all(dataset, collated=False), _REPEATS),
            "shards": _NUM_RECORDS // _PER_SHARD,
            "reads_per_second_100_times_as_many_shards": _NUM_RECORDS
            / best_seconds(lambda: read_all(in_many, collated=False), _REPEATS),
            "reads_per_second_one_reader_process": speeds[1],
            "reads_per_second_each_of_two_readers": speeds[2],
            "reads_collated_per_second": _NUM_RECORDS / best_seconds(lambda: read_all(dataset, collated=True), 3),
            "writes_per_second": _NUM_RECORDS / write_seconds,
            "peak_rss_mib": peak,
            "peak_rss_growth_mib": growth,
            "stored_mib": stored_bytes * _NUM_RECORDS / 2**20,
            "bytes_per_record": stored_bytes,
            "bytes_per_record_payload": statistics.mean(len(entry.payload) for entry in entries),
            "bytes_per_record_chgnet": chgnet_bytes,
            "records": _NUM_RECORDS,
            "atoms_median": statistics.median(map(len, structures)),
            "atoms_mean": statistics.mean(map(len, structures)),
            "bonds_mean": float(dataset.index.num_bonds.mean()),
            "origin": origin,
        }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        before_reading = status_mib("VmRSS")
        read_all(ShardDataset(sys.argv[2]), collated=True)
        sys.stdout.write(f"{before_reading} {status_mib('VmHWM')}\n")
    else:
        run(measure, __doc__)
