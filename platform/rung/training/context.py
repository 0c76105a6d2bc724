"""What the training loop knows about its launcher: who it is, where it computes, whether it should stop."""

import os
import signal
from collections.abc import Mapping
from datetime import timedelta
from types import FrameType
from typing import Protocol

import torch
import torch.distributed as dist

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells its processes."""


class RendezvousError(ConnectionError):
    """Ranks that cannot meet."""


class TrainContext(Protocol):
    """The seam between the loop and Ray, torchrun or a plain process. The loop never sees more of them."""

    @property
    def rank(self) -> int:
        """This rank, 0 <= rank < world_size."""
        ...

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of this rank's model replica."""
        ...

    @property
    def ends_at_reports(self) -> bool:
        """Whether the launcher may end the run when it is told of an epoch, and take what is on storage."""
        ...

    def report(self, metrics: Mapping[str, float]) -> None:
        """Tell the launcher about an epoch. Every rank calls it equally often."""
        ...

    def should_stop(self, step: int) -> bool:
        """Whether this rank was asked to checkpoint and leave before this global step; one of them suffices."""
        ...

    def should_save(self, step: int) -> bool:
        """Whether this rank wants a checkpoint before this global step, since its node may be taken away soon."""
        ...


def default_device(local_rank: int = 0) -> torch.device:
    """The GPU of this local rank where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


class SignalledContext:
    """A process that Ctrl-C and SIGTERM ask to stop at the next step, once; the second one kills.

    Until `handle_signals` is called they do what they do in Python.
    """

    ends_at_reports = False

    def __init__(self) -> None:
        self._stop_requested = False

    @property
    def stop_requested(self) -> bool:
        """Whether a signal arrived; one that came after the last step did not cut the run short."""
        return self._stop_requested

    def should_stop(self, step: int) -> bool:  # noqa: ARG002 (other launchers decide by step)
        """Whether a signal arrived."""
        return self._stop_requested

    def should_save(self, step: int) -> bool:  # noqa: ARG002 (other launchers decide by step)
        """A process that will be taken away is told by a signal, and leaves."""
        return False

    def handle_signals(self) -> None:
        """Turn Ctrl-C and SIGTERM into a request to stop cleanly. Call from the main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (signal's signature)
        self._stop_requested = True
        signal.signal(number, signal.SIG_DFL)


class LocalContext(SignalledContext):
    """One process, one rank.

    Args:
        device: to compute on; `default_device` if absent.
    """

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.device = torch.device(device) if device is not None else default_device()

    def report(self, metrics: Mapping[str, float]) -> None:
        """A plain process has no launcher to tell."""


class TorchrunContext(SignalledContext):
    """One rank among those that torchrun started; opens the process group from torchrun's environment.

    Torchrun passes SIGTERM on to its ranks, and gives them 30 s before it kills them.

    Args:
        timeout: seconds after which a collective fails.

    Raises:
        ValueError: torchrun did not start this process.
        RendezvousError: the ranks cannot meet.
    """

    def __init__(self, timeout: float = 1800.0) -> None:
        super().__init__()
        missing = [name for name in _TORCHRUN if name not in os.environ]
        if missing:
            raise ValueError(
                f"launcher.kind is 'torchrun', but {', '.join(missing)} is not set:"
                " start the job with torchrun, or set launcher.kind to local or ray"
            )
        self.device = default_device(int(os.environ["LOCAL_RANK"]))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
        except dist.DistNetworkError as error:
            raise RendezvousError(_no_meeting()) from error
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def report(self, metrics: Mapping[str, float]) -> None:
        """Torchrun keeps no books."""

    def close(self) -> None:
        """Leave the process group."""
        dist.destroy_process_group()


def _no_meeting() -> str:
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    if os.environ["RANK"] == "0":
        return (
            f"rank 0 cannot open port {port} of {host} (MASTER_PORT) for the other ranks, most likely since another run"
            " has it: start with torchrun --standalone on one machine, or give torchrun another --master-port"
        )
    return (
        f"rank {os.environ['RANK']} does not reach rank 0 at port {port} of {host} (MASTER_ADDR, MASTER_PORT): start"
        " torchrun on that machine too, and let the firewall pass that port"
    )
