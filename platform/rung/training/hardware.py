"""What a run computes on: hardware of the nodes that its ranks are on."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

from rung.training.distributed import gather_text

_CPU_INFO = Path("/proc/cpuinfo")


@cache
def node_hardware() -> dict[str, Any]:
    """This node: host, operating system, CPU, usable cores, memory (GiB), GPUs by name with memory (GiB)."""
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in gpus],
        "cuda": torch.version.cuda if gpus else None,
    }


def hardware_of_ranks() -> list[dict[str, Any]]:
    """Each node with the ranks on it; every rank calls this."""
    nodes: dict[str, dict[str, Any]] = {}
    for rank, text in enumerate(gather_text(json.dumps(node_hardware()))):
        node = json.loads(text)
        nodes.setdefault(node["host"], node | {"ranks": []})["ranks"].append(rank)
    return list(nodes.values())


def hardware_text(nodes: Sequence[Mapping[str, Any]]) -> str:
    """The nodes in one line."""
    texts = []
    for node in nodes:
        gpus = [f"{gpu['name']} {gpu['memory_gib']:g} GiB" for gpu in node["gpus"]]
        parts = [f"{node['cores']} cores of {node['cpu']}", f"{node['memory_gib']:g} GiB", *gpus]
        texts.append(f"{node['host']}: {', '.join(parts)}, ranks {', '.join(map(str, node['ranks']))}")
    return "; ".join(texts)


def _cpu_name() -> str:
    if _CPU_INFO.exists():
        names = [line for line in _CPU_INFO.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()
