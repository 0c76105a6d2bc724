"""What a frozen network saves: seconds of a training step at each freeze depth, over those with nothing frozen.

    python -m tests.benchmarks.freeze --json figures.json

CHGNet 0.3.0, energy, forces, stress and magmoms, on Materials Project frames (see `tests.benchmarks.train_step`). On a
CPU the seconds are process time, on one thread, which other work on the machine disturbs little.
"""

import statistics

from rung.model.freeze import freeze, max_depth
from tests.benchmarks.figures import Figures, parsed, step_parser, write
from tests.benchmarks.train_step import Side, labelled_cells, rung_side, seconds, step, targets_of


def measure(structures: int, repeats: int, device: str) -> Figures:
    """Time the depths in turns."""
    records, origin = labelled_cells(structures)
    targets = targets_of(records, device)
    sides = {depth: _side(records, device, depth) for depth in range(max_depth(rung_side(records, device).model) + 1)}
    for side in sides.values():
        step(side, targets)
    times: dict[int, list[float]] = {depth: [] for depth in sides}
    for _ in range(repeats):
        for depth, side in sides.items():
            times[depth].append(seconds(side, targets, device))
    figures: Figures = {"structures": structures, "cells": origin, "seconds_per_step": min(times[0]), "device": device}
    for depth, taken in times.items():
        ratios = [mine / free for mine, free in zip(taken, times[0], strict=True)]
        figures[f"time_at_depth_{depth}_over_free"] = statistics.median(ratios)
    return figures


def _side(records: list, device: str, depth: int) -> Side:
    side = rung_side(records, device)
    freeze(side.model, depth)
    return side


if __name__ == "__main__":
    parser = step_parser(__doc__, repeats=5)
    parser.add_argument("--structures", type=int, default=11)
    options = parsed(parser)
    write(measure(options.structures, options.repeats, options.device), options.json)
