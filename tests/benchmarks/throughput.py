"""Structures per second of a training step by size of the batch, and how near it comes to what the device can do.

    python -m tests.benchmarks.throughput --device cuda --json figures.json

CHGNet 0.3.0, energy, forces as -dE/dx, stress and magmoms, Rung's loss, gradients; Materials Project frames of MPtrj's
sizes (see `tests.benchmarks.train_step`). The peaks are measured on the same device: a copy, and a float32 product of
large matrices. The floating-point operations are those of all matrix products of a step, recomputed ones included. The
bytes are those of all arrays that operations read and write, each once for an operation: gathers that read a row many
times count it once, so what really moves is more. `--engine blocks` takes torch's own operations instead of the fused
kernels, on any device; on a CPU the compiled loops are not counted, so it is the only choice there, on one thread and
in process time.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from rung.config.preparation import GraphConfig
from rung.config.sections import LossConfig
from rung.data.batch import collate
from rung.data.graph import graph_record
from rung.data.sampler import LabelCounts
from rung.model import blocks, chgnet, message
from rung.model.weights import load
from rung.training.loss import loss_of, target_errors
from tests.benchmarks.figures import Figures, parsed, step_parser, write
from tests.benchmarks.train_step import labelled_cells

_KERNELS = ("sums", "gradients", "second_gradients")
"""Of `rung.model.fused`."""
_PEAK_REPEATS = 10
_ATEN = torch.ops.aten
_MOVES_NOTHING = {_ATEN.empty, _ATEN.empty_like, _ATEN.empty_strided, _ATEN.new_empty, _ATEN._unsafe_view}


def step_of(structures: int, device: str) -> Callable[[], None]:
    """One training step on a batch that is made beforehand."""
    records, _ = labelled_cells(structures)
    model = load("0.3.0").to(device)
    batch = collate([graph_record(record, GraphConfig()) for record in records]).to(device)
    loss = LossConfig()
    counts = LabelCounts(*target_errors(chgnet.evaluate(model, batch), batch, loss).sums[:, 3].long().tolist())

    def step() -> None:
        model.zero_grad(set_to_none=True)
        errors = target_errors(chgnet.evaluate(model, batch, create_graph=True), batch, loss)
        loss_of(errors, counts, loss).backward()

    return step


def measure(sizes: list[int], repeats: int, device: str, engine: str) -> Figures:
    """Time the sizes, count the work of each, and compare with the device's peaks."""
    copied, multiplied = peak_bytes(device), peak_flops(device)
    figures: Figures = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "engine": engine,
        "cells": labelled_cells(1)[1],
        "peak_gigabytes_per_second": copied / 1e9,
        "peak_gigaflops": multiplied / 1e9,
    }
    for size in sizes:
        with messages_by(engine):
            step = step_of(size, device)
            step()
            seconds = statistics.median(_seconds(step, device) for _ in range(repeats))
            memory = _peak_gib(step) if device == "cuda" else None
            moved = count_bytes(step, engine)
        with messages_by("blocks"):  # the same products as in the kernels, which are not seen from outside
            flops = count_flops(step)
        figures |= {
            f"structures_per_second_{size}": size / seconds,
            f"seconds_{size}": seconds,
            f"gigaflop_{size}": flops / 1e9,
            f"gigabyte_{size}": moved / 1e9,
            f"share_of_peak_flops_{size}": flops / seconds / multiplied,
            f"share_of_peak_bandwidth_{size}": moved / seconds / copied,
        }
        if memory is not None:
            figures[f"peak_gib_{size}"] = memory
    return figures


def messages_by(engine: str) -> AbstractContextManager[object]:
    """Let messages be summed by the fused kernels, or by torch's own operations block by block."""
    return nullcontext() if engine == "fused" else mock.patch.object(chgnet, "pass_messages", _by_blocks)


def _by_blocks(routes: Any, terms: tuple[Any, ...], weight: Tensor | None, parameters: Any) -> Tensor:
    return message.with_derivatives(blocks, routes, message.computed(terms), weight, parameters)


def peak_bytes(device: str) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.ones(2**28 if device == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source), device) for _ in range(_PEAK_REPEATS))
    return 2 * source.numel() * source.element_size() / best


def peak_flops(device: str) -> float:
    """Float32 operations per second of a product of large matrices."""
    size = 8192 if device == "cuda" else 2048
    left, right = torch.rand(2, size, size, device=device)
    best = min(_seconds(lambda: left @ right, device) for _ in range(_PEAK_REPEATS))
    return 2 * size**3 / best


def _seconds(work: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter  # other work on the machine does not count
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def _peak_gib(step: Callable[[], None]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def count_flops(step: Callable[[], None]) -> int:
    """Floating-point operations of the matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def count_bytes(step: Callable[[], None], engine: str) -> int:
    """Bytes of all arrays that the operations of a step read and write; a fused kernel is one operation."""
    counter = _ByteCounter()
    kernels = import_module("rung.model.fused") if engine == "fused" else None
    with ExitStack() as stack:
        for name in _KERNELS if kernels is not None else ():
            stack.enter_context(mock.patch.object(kernels, name, counter.counted(getattr(kernels, name))))
        stack.enter_context(counter)
        step()
    return counter.total


class _ByteCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def counted(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """A function that launches a kernel, which torch's dispatcher does not see."""

        def launch(*args: Any, **kwargs: Any) -> Any:
            result = kernel(*args, **kwargs)
            self.total += _bytes((args, result))
            return result

        return launch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket not in _MOVES_NOTHING:
            self.total += _bytes((args, kwargs, result))
        return result


def _bytes(values: Any) -> int:
    found = {id(each): each.numel() * each.element_size() for each in _tensors(values)}
    return sum(found.values())


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif is_dataclass(values):
        yield from _tensors(list(vars(values).values()))
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


if __name__ == "__main__":
    parser = step_parser(__doc__, repeats=7)
    parser.add_argument("--engine", choices=["fused", "blocks"], help="default: fused on a GPU")
    parser.add_argument("--structures", type=int, nargs="+", help="sizes of the batch")
    options = parsed(parser)
    on_cpu = options.device == "cpu"
    sizes = options.structures or ([4, 11] if on_cpu else [64, 128, 256, 512, 1024])
    chosen = options.engine or ("blocks" if on_cpu else "fused")
    write(measure(sizes, options.repeats, options.device, chosen), options.json)
