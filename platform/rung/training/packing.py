"""A state as a handful of buffers and a text: quick to copy out of the way of training, and quick to write.

A run's state holds some five hundred tensors, most of them small. torch.save spends tens of microseconds of Python on
each, during which training waits for the interpreter; here all of one kind become one buffer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

_TENSOR: Final = "$tensor"
_TUPLE: Final = "$tuple"
_ITEMS: Final = "$items"


@dataclass(frozen=True)
class PackedState:
    """A copy of a state in host memory.

    Attributes:
        layout: the state as JSON, with places in the buffers instead of tensors.
        buffers: one-dimensional, on the CPU, one for each device and type of tensor.
    """

    layout: str
    buffers: list[Tensor]

    def content(self) -> dict[str, Any]:
        """What is written to a file."""
        return {"layout": self.layout, "buffers": self.buffers}


def pack(state: Mapping[str, Any]) -> PackedState:
    """Copy a tree of tensors and plain values; later changes to its tensors do not reach the copy.

    Raises:
        TypeError: it holds something else.
    """
    packer = _Packer()
    layout = json.dumps(packer.encoded(state))
    return PackedState(layout, [buffer.joined() for buffer in packer.buffers.values()])


def unpack(content: Mapping[str, Any]) -> dict[str, Any]:
    """The state whose `PackedState.content` was written."""
    return _decoded(json.loads(content["layout"]), content["buffers"])


@dataclass
class _Buffer:
    """Tensors of one kind that will lie one after the other."""

    number: int
    parts: list[Tensor] = field(default_factory=list)
    size: int = 0

    def add(self, tensor: Tensor) -> int:
        """Its offset."""
        offset = self.size
        self.parts.append(tensor.reshape(-1))
        self.size += tensor.numel()
        return offset

    def joined(self) -> Tensor:
        return torch.cat(self.parts).cpu()  # a copy, and from a GPU one transfer for all


class _Packer:
    """Collects tensors by device and type, and says where each will lie."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[torch.device, torch.dtype], _Buffer] = {}

    def encoded(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return {_TENSOR: self._placed(value.detach())}
        if isinstance(value, Mapping):
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: self.encoded(inner) for key, inner in value.items()}
            return {_ITEMS: [[key, self.encoded(inner)] for key, inner in value.items()]}
        if isinstance(value, tuple):
            return {_TUPLE: [self.encoded(inner) for inner in value]}
        if isinstance(value, list):
            return [self.encoded(inner) for inner in value]
        raise TypeError(f"a state holds tensors and plain values, no {type(value).__name__} ({value!r})")

    def _placed(self, tensor: Tensor) -> list[int]:
        kind = (tensor.device, tensor.dtype)
        buffer = self.buffers.get(kind)
        if buffer is None:
            buffer = self.buffers[kind] = _Buffer(len(self.buffers))
        return [buffer.number, buffer.add(tensor), *tensor.shape]


def _decoded(value: Any, buffers: list[Tensor]) -> Any:
    if isinstance(value, list):
        return [_decoded(inner, buffers) for inner in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        buffer, offset, *shape = value[_TENSOR]
        size = torch.Size(shape)
        return buffers[buffer][offset : offset + size.numel()].reshape(size).clone()
    if _TUPLE in value:
        return tuple(_decoded(inner, buffers) for inner in value[_TUPLE])
    if _ITEMS in value:
        return {key: _decoded(inner, buffers) for key, inner in value[_ITEMS]}
    return {key: _decoded(inner, buffers) for key, inner in value.items()}
