"""How busy the nodes of a run are: sampled on each of them, written to the run's folder, read by whoever tracks it.

The names are those of MLflow's own monitor, `system/<node>/cpu_utilization_percentage` and so on, so that its pages
show them where users look for them; its monitor itself would need MLflow, and a way to it, on every node.
"""

import json
import logging
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from rung.config.tree import TrainConfig
from rung.orchestration.watch import LineFollower
from rung.training.run import RunFolder

logger = logging.getLogger(__name__)

FOLDER_NAME: Final = "system"
_MEGABYTE: Final = 1e6
_LAST_SAMPLE_SECONDS: Final = 5.0
"""Longest wait for the last sample of a run, on storage that hangs."""


@contextmanager
def monitored(config: TrainConfig, *, first_on_node: bool) -> Iterator[None]:
    """Sample this node while the run goes on, if this is the first of its ranks here and the config wants it."""
    every = config.tracking.system_metrics_every
    if not first_on_node or every == 0 or config.tracking.kind == "off":
        yield
        return
    path = RunFolder.of(config).path / FOLDER_NAME / f"{platform.node()}.jsonl"
    ending = threading.Event()
    thread = threading.Thread(target=_sample, args=(path, every, ending), name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(timeout=_LAST_SAMPLE_SECONDS)


def sample() -> dict[str, float]:
    """CPU, memory, disk and network of this node, and each GPU's use and memory where there are any."""
    memory, disk, network = psutil.virtual_memory(), psutil.disk_usage("/"), psutil.net_io_counters()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / _MEGABYTE,
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_percentage": disk.percent,
        "network_receive_megabytes": network.bytes_recv / _MEGABYTE,
        "network_transmit_megabytes": network.bytes_sent / _MEGABYTE,
    } | _gpus()


class NodeSamples:
    """Reads what all nodes of a run have written.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER_NAME
        self._files: dict[Path, LineFollower] = {}

    def new(self) -> list[tuple[str, float, int, int]]:
        """Name, value, time (ms since 1970) and number of each sample since the last call."""
        found = []
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in self._files.setdefault(path, LineFollower(path)).new_lines():
                values = json.loads(line)
                number, at = values.pop("number"), int(1000 * values.pop("time"))
                found += [(f"system/{path.stem}/{name}", value, at, number) for name, value in values.items()]
        return found


def _sample(path: Path, every: float, ending: threading.Event) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = len(path.read_text().splitlines()) if path.exists() else 0
        psutil.cpu_percent()  # its first answer means nothing
        before = psutil.net_io_counters()
        ended = False
        while not ended:  # a last time at the end, so that a run shorter than the interval is seen too
            ended = ending.wait(every)
            values = sample()
            values["network_receive_megabytes"] -= before.bytes_recv / _MEGABYTE
            values["network_transmit_megabytes"] -= before.bytes_sent / _MEGABYTE
            with path.open("a") as file:
                file.write(json.dumps({"number": number, "time": time.time(), **values}) + "\n")
            number += 1
    except OSError as error:  # training is worth more than its figures
        logger.warning("%s cannot be written (%s): no more system metrics of this node", path, error)


def _gpus() -> dict[str, float]:
    found: dict[str, float] = {}
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / _MEGABYTE
        found[f"gpu_{number}_memory_usage_percentage"] = 100 * (total - free) / total
        found |= _optional(f"gpu_{number}_utilization_percentage", torch.cuda.utilization, number)
        found |= _optional(f"gpu_{number}_temperature_celsius", torch.cuda.temperature, number)
    return found


def _optional(name: str, ask: Any, number: int) -> dict[str, float]:
    """A figure that NVIDIA's library gives where it is installed."""
    try:
        return {name: float(ask(number))}
    except (ModuleNotFoundError, RuntimeError):
        return {}
