"""Preparing a file of MPtrj's layout and of a gigabyte or two: records per second, and memory of all processes.

python -m tests.benchmarks.prepare --json FILE

The file is made for the purpose: the real frames of the test data again and again under other ids, each slightly
compressed or stretched, so that no two are the same. A tenth of it is prepared too: time per record must not grow.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from tests.benchmarks.cells import DATA
from tests.benchmarks.figures import Figures, run

ROOT: Final = Path(__file__).resolve().parents[2]
_BYTES: Final = 2_000_000_000
_SAMPLES_PER_SECOND: Final = 4


def write_mptrj(path: Path, num_bytes: int) -> int:
    """Write a file of at least so many bytes; returns its number of frames."""
    with gzip.open(DATA / "derived-mptrj-format" / "mp_tasks_in_mptrj_format.json.gz", "rt") as file:
        materials = json.load(file)
    written, number = 0, 0
    with path.open("w") as file:
        file.write("{")
        for copy, (material, frames) in _copies(materials):
            text = json.dumps({f"{name}-c{copy}": _scaled(frame, copy) for name, frame in frames.items()})
            written += file.write(f'{"," if number else ""}"{material}-c{copy}": {text}')
            number += len(frames)
            if written >= num_bytes:
                break
        file.write("}")
    return number


def _copies(materials: dict[str, dict]) -> Iterator[tuple[int, tuple[str, dict]]]:
    copy = 0
    while True:
        for item in materials.items():
            yield copy, item
        copy += 1


def _scaled(frame: dict, copy: int) -> dict:
    """The frame in a cell that is a little larger, another for each copy."""
    lattice = frame["structure"]["lattice"]
    factor = 1 + 1e-4 * copy
    scaled = {**lattice, "matrix": (factor * np.array(lattice["matrix"])).tolist()}
    return {**frame, "structure": {**frame["structure"], "lattice": scaled}}


class Memory:
    """Watches the memory of a process and all its children until it ends: the largest sums, bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.resident = 0
        self.proportional = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
            resident = proportional = 0
            for process in [self._process, *self._process.children(recursive=True)]:
                try:
                    full = process.memory_full_info()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                resident += full.rss
                proportional += full.pss
            self.resident, self.proportional = max(self.resident, resident), max(self.proportional, proportional)
            time.sleep(1 / _SAMPLES_PER_SECOND)


def prepare(raw: Path, output: Path) -> tuple[float, Memory]:
    """Run the job; returns its seconds and its memory."""
    command = [sys.executable, "jobs/prepare_data.py", "--output", str(output), "--source.kind", "mptrj"]
    start = time.monotonic()
    with subprocess.Popen([*command, "--source.path", str(raw)], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        memory = Memory(process.pid)
    if process.returncode:
        raise RuntimeError(f"the preparation of {raw} failed")
    return time.monotonic() - start, memory


def measure() -> Figures:
    """Prepare a tenth, then the whole."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="rung-prepare-") as scratch:
        per_record = {}
        for name, num_bytes in (("tenth", _BYTES // 10), ("whole", _BYTES)):
            raw, output = Path(scratch) / f"{name}.json", Path(scratch) / name
            num_frames = write_mptrj(raw, num_bytes)
            seconds, memory = prepare(raw, output)
            summary = json.loads((output / "summary.json").read_text())
            per_record[name] = seconds / num_frames
            figures |= {
                f"frames_{name}": num_frames,
                f"kept_{name}": summary["records_kept"],
                f"megabytes_{name}": round(raw.stat().st_size / 1e6),
                f"seconds_{name}": round(seconds, 1),
                f"peak_rss_mib_{name}": round(memory.resident / 2**20),
                f"peak_pss_mib_{name}": round(memory.proportional / 2**20),
            }
            raw.unlink()
    return figures | {
        "records_per_second": round(1 / per_record["whole"], 1),
        "seconds_per_record_whole_over_tenth": round(per_record["whole"] / per_record["tenth"], 3),
        "peak_rss_mib": figures["peak_rss_mib_whole"],
    }


if __name__ == "__main__":
    run(measure, __doc__)
