"""What the benchmarks share: the command line, the JSON, and the best of several times."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Figures = dict[str, float | int | bool | str]


def run(
    measure: Callable[[], Figures],
    description: str | None,
    draw: Callable[[Figures, Path], None] | None = None,
) -> None:
    """Measure, print the figures, and write them as one flat JSON object where `--json` says, a plot beside it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    options = parser.parse_args()
    figures = measure()
    write(figures, options.json)
    if draw is not None and options.json is not None:
        draw(json.loads(options.json.read_text()), options.json.with_suffix(".svg"))  # as they are written, rounded


def step_parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Options of a benchmark that times training steps on a device."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    parser.add_argument("--repeats", type=int, default=repeats, help="timed steps of each kind")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; on a CPU, torch keeps to one thread from here on."""
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    return options


def write(figures: Mapping[str, float | int | bool | str], path: Path | None) -> None:
    """Print figures, and write them to `path` if there is one."""
    text = json.dumps(
        {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in figures.items()},
        indent=2,
        ensure_ascii=False,
    )
    sys.stdout.write(text + "\n")
    if path is not None:
        path.write_text(text + "\n")


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    """Shortest wall time of `repeats` runs, s: the one least disturbed by other work on the machine."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def status_mib(key: str) -> float:
    """Memory of this process as Linux counts it, MiB: VmHWM is the peak, RssAnon what no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024
