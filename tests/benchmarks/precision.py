"""What products of less precise factors shift: energies, forces, stresses, magmoms and gradients of the loss.

    python -m tests.benchmarks.precision --json figures.json

CHGNet 0.3.0 on Materials Project frames (see `tests.benchmarks.train_step`): `training.precision: tf32` against float32
on the same device and batch, and how long a step takes beside it; a CPU has no tf32, which then shifts nothing. Rung
does not offer bf16. What it would shift is found by rounding the factors of every product outside the message kernels
to it, on any device.
"""

import statistics
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F  # noqa: N812 -- as everyone who uses torch writes it
from torch import Tensor

from rung.config.sections import Precision
from rung.training.numerics import set_precision
from tests.benchmarks import train_step
from tests.benchmarks.figures import Figures, parsed, step_parser, write
from tests.benchmarks.train_step import Side, labelled_cells, rung_side, step, targets_of

_PRECISIONS: tuple[Precision, ...] = ("float32", "tf32")
_PROPERTIES = {"e": ("energy_mev_per_atom", 1e3), "f": ("force_mev_per_angstrom", 1e3), "s": ("stress_gpa", 1.0)}
_PROPERTIES |= {"m": ("magmom_mu_b", 1.0)}


def measure(structures: int, repeats: int, device: str) -> Figures:
    """Compare each precision with float32."""
    records, origin = labelled_cells(structures)
    side, targets = rung_side(records, device), targets_of(records, device)
    found = {precision: _of(precision, side, targets) for precision in _PRECISIONS}
    with mock.patch.object(F, "linear", _rounded(F.linear)):
        found["bf16"] = _of("float32", side, targets)
    figures: Figures = {"structures": structures, "cells": origin, "device": _name(device)}
    exact, gradient = found["float32"]
    for precision in ("tf32", "bf16"):
        predicted, its = found[precision]
        for name, (meaning, scale) in _PROPERTIES.items():
            shift = scale * (predicted[name] - exact[name]).abs()
            figures[f"{precision}_{meaning}_mean"] = shift.mean().item()
            figures[f"{precision}_{meaning}_max"] = shift.max().item()
        figures[f"{precision}_gradient_relative"] = ((its - gradient).norm() / gradient.norm()).item()
    figures["tf32_seconds_over_float32"] = _ratio("tf32", side, targets, repeats, device)
    set_precision("float32")
    return figures


def _rounded(linear: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def with_bf16(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(inputs.bfloat16().float(), weight.bfloat16().float(), bias)

    return with_bf16


def _of(precision: Precision, side: Side, targets: dict) -> tuple[dict[str, Tensor], Tensor]:
    set_precision(precision)
    predicted = {name: _flat(values) for name, values in side.predict().items()}
    step(side, targets)
    return predicted, torch.cat([p.grad.flatten() for p in side.model.parameters() if p.grad is not None])


def _flat(values: Tensor | list[Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in values]) if isinstance(values, list | tuple) else values


def _ratio(precision: Precision, side: Side, targets: dict, repeats: int, device: str) -> float:
    ratios = []
    for _ in range(repeats):
        set_precision("float32")
        exact = train_step.seconds(side, targets, device)
        set_precision(precision)
        ratios.append(train_step.seconds(side, targets, device) / exact)
    return statistics.median(ratios)


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    parser = step_parser(__doc__, repeats=5)
    parser.add_argument("--structures", type=int, default=44)
    options = parsed(parser)
    write(measure(options.structures, options.repeats, options.device), options.json)
