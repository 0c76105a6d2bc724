"""Sums of messages and their derivatives on an NVIDIA GPU: what launches the kernels of `rung.model.kernels`."""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports] -- comes with the CUDA builds of torch alone
from torch import Tensor

from rung.model import kernels
from rung.model.gate import Parameters
from rung.model.routes import InputGradients, Inputs, Routes

_PRODUCTS = {"highest": "tf32x3", "high": "tf32", "medium": "tf32"}
"""Torch's setting (`torch.set_float32_matmul_precision`) to Triton's; tf32x3 is as exact as float32."""
# Fastest of 16 to 64 rows and 4 or 8 warps on an H100.
_ROWS = {"message": 64, "message_gradient": 16, "message_second_gradient": 16}
_WARPS = {"message": 4, "message_gradient": 4, "message_second_gradient": 4}


def sums(routes: Routes, inputs: Inputs) -> Tensor:
    """Sum the messages of each target: (num_targets, feature_dim)."""
    result = _target(inputs.terms[0], routes.target, routes.num_targets, inputs.parameters.scale.shape[1])
    _launch(kernels.message, routes, inputs, result)
    return result


def gradients(routes: Routes, inputs: Inputs, gradient: Tensor, *, with_parameters: bool) -> InputGradients:
    """First derivative, from the gradient by the sums (num_targets, feature_dim)."""
    found = _Buffers(routes, inputs, with_parameters=with_parameters)
    _launch(kernels.message_gradient, routes, inputs, gradient.contiguous(), *found.pointers, TOTAL=found.total)
    return found.gradients()


def second_gradients(
    routes: Routes, inputs: Inputs, gradient: Tensor, along_weight: Tensor | None, along_terms: list[Tensor | None]
) -> tuple[Tensor, InputGradients]:
    """Second derivative: by the gradient, and by the inputs; arguments as of `rung.model.blocks.second_gradients`."""
    found = _Buffers(routes, inputs, with_parameters=True)
    by_gradient = _target(gradient, routes.target, *gradient.shape)
    along = tuple(None if term is None else term.contiguous() for term in along_terms)
    directions = along, None if along_weight is None else along_weight.contiguous()
    arguments = (gradient.contiguous(), *directions, by_gradient, *found.pointers)
    _launch(kernels.message_second_gradient, routes, inputs, *arguments, TOTAL=found.total)
    return by_gradient, found.gradients()


def _target(like: Tensor, index: Tensor | None, rows: int, width: int) -> Tensor:
    """Room for what messages are added to, or stored in where each has its row."""
    return like.new_empty(rows, width) if index is None else like.new_zeros(rows, width)


class _Buffers:
    """What the derivative kernels write to."""

    def __init__(self, routes: Routes, inputs: Inputs, *, with_parameters: bool) -> None:
        pairs = zip(inputs.terms, routes.terms, strict=True)
        self._terms = tuple(_target(term, index, *term.shape) for term, index in pairs)
        weight = inputs.weight
        self._weight = None if weight is None else _target(weight, routes.weight, *weight.shape)
        self._parts = inputs.parameters.parts
        self.total = sum(part.numel() for part in self._parts if part is not None) if with_parameters else 0
        self._slices = self._terms[0].new_zeros(kernels.NUM_SLICES.value, self.total) if with_parameters else None
        self.pointers = (self._terms, self._weight, self._slices)

    def gradients(self) -> InputGradients:
        parameters: tuple[Tensor | None, ...] = (None,) * len(self._parts)
        if self._slices is not None:
            flat = iter(self._slices.sum(dim=0).split([part.numel() for part in self._parts if part is not None]))
            parameters = tuple(None if part is None else next(flat).view_as(part) for part in self._parts)
        return InputGradients(self._weight, parameters, self._terms)


def _launch(kernel: Any, routes: Routes, inputs: Inputs, *arguments: Any, **options: Any) -> None:
    if routes.num_messages == 0:
        return
    first, second, _ = routes.terms
    width = inputs.parameters.scale.shape[1]
    rows = _ROWS[kernel.__name__]
    kernel[(triton.cdiv(routes.num_messages, rows),)](
        tuple(term.contiguous() for term in inputs.terms),
        inputs.weight,
        inputs.parameters.parts,
        (first, second, routes.weight, routes.target),
        *arguments,
        routes.num_messages,
        HIDDEN=inputs.terms[0].shape[1] // 2,
        WIDTH=width,
        ROWS=rows,
        PRECISION=_PRODUCTS[torch.get_float32_matmul_precision()],
        num_warps=_WARPS[kernel.__name__],
        num_stages=1,
        **options,
    )


def fits(terms: tuple[Tensor, ...], parameters: Parameters) -> bool:
    """Whether the kernels handle these shapes: float32, widths that are powers of two from 16 to 128."""
    widths = parameters.scale.shape[1], terms[0].shape[1] // 2
    return terms[0].dtype == torch.float32 and all(16 <= w <= 128 and w & (w - 1) == 0 for w in widths)
