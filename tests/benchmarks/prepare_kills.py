"""A preparation that is killed again and again at random moments must end with the bytes of an undisturbed one.

python -m tests.benchmarks.prepare_kills --json FILE

The main process is killed with SIGKILL, so nothing can clean up; its workers have to notice. The same command is then
given again, until one call lives long enough to finish. One such series follows another until there were enough kills.
"""

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from tests.benchmarks.figures import Figures, run
from tests.benchmarks.prepare import ROOT, write_mptrj

_KILLS: Final = 50
_BYTES: Final = 30_000_000
_SHARD_MB: Final = 0.5
_LONGEST_TO_END: Final = 10.0  # s, for the workers of a killed process


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a data set but the summary, which holds the seconds that it took."""
    files = sorted(path for path in folder.iterdir() if path.name != "summary.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(raw: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start the job."""
    settings = {"output": output, "source.kind": "mptrj", "source.path": raw, "shards.max_mb": _SHARD_MB}
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "jobs/prepare_data.py", *words, "--parallel.workers", "2"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill a process alone; returns whether its children end by themselves soon."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=_LONGEST_TO_END)
    return not alive


def killed_until_done(raw: Path, output: Path, kills: int, longest: float, rng: random.Random) -> tuple[int, bool]:
    """Run the job with at most so many kills at random moments; returns how many came, and if no worker was left."""
    came, clean = 0, True
    while True:
        process = start(raw, output)
        try:
            process.wait(rng.uniform(0, longest) if came < kills else None)
        except subprocess.TimeoutExpired:
            clean &= kill(process)
            came += 1
            continue
        if process.returncode:
            raise RuntimeError(f"the preparation of {output} failed after {came} kills")
        return came, clean


def measure(kills: int = _KILLS, num_bytes: int = _BYTES) -> Figures:
    """Kill often, and compare each time it was done."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="rung-kills-") as scratch:
        raw, whole = Path(scratch) / "raw.json", Path(scratch) / "whole"
        num_frames = write_mptrj(raw, num_bytes)
        begin = time.monotonic()
        if start(raw, whole).wait():
            raise RuntimeError("the undisturbed preparation failed")
        undisturbed = time.monotonic() - begin
        came, series, same, clean = 0, 0, True, True
        while came < kills:
            output = Path(scratch) / f"killed-{series}"
            more, ended = killed_until_done(raw, output, min(5, kills - came), undisturbed, rng)
            same &= hashes(output) == hashes(whole)
            clean &= ended
            came, series = came + more, series + 1
        return {
            "kills": came,
            "finished_sets": series,
            "frames": num_frames,
            "shards": len(list(whole.glob("*.lmdb"))),
            "identical": same,
            "no_process_left": clean,
            "seconds_undisturbed": round(undisturbed, 1),
        }


if __name__ == "__main__":
    run(measure, __doc__)
