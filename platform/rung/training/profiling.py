"""A trace of some steps by PyTorch's profiler, to be opened in chrome://tracing or Perfetto."""

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

logger = logging.getLogger(__name__)


class StepTracer:
    """Records the global steps first to last, counted from 1 as in the log, of one rank.

    Args:
        steps: first and last; none are recorded if absent.
        folder: of the run, for the trace.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path) -> None:
        self._first, self._last = steps or (0, -1)
        self._path = folder / f"trace-steps-{self._first}-{self._last}.json"
        self._profile: profile | None = None

    def before(self, step: int) -> None:
        """Begin to record if this is the first step of interest."""
        if step == self._first and self._last >= self._first:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities, record_shapes=True)
            self._profile.start()

    def after(self, step: int) -> None:
        """Write the trace if this was the last step of interest."""
        if self._profile is not None and step == self._last:
            self._profile.stop()
            self._profile.export_chrome_trace(str(self._path))
            self._profile = None
            logger.info("trace of steps %d to %d: %s", self._first, self._last, self._path)
