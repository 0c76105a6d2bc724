"""How far a run has come with what is not a step, such as the errors of the untouched model on the held-out records.

Rank 0 keeps it in a file of the run's folder, where whoever watches the run finds it; the file goes with the work.
"""

import json
import time
from contextlib import suppress
from typing import Final

from rung.training.run import RunFolder

MEANWHILE_NAME: Final = "meanwhile.json"

_EVERY: Final = 1.0  # seconds between two writes


class Meanwhile:
    """A listener (`rung.config.progress`) for one rank; only rank 0 writes.

    Args:
        folder: of the run.
        rank: of this process.
    """

    def __init__(self, folder: RunFolder, rank: int) -> None:
        self._folder = folder
        self._speaks = rank == 0
        self._since = time.monotonic()
        self._written = False

    def __call__(self, what: str, done: int, total: int, unit: str) -> None:
        """Write it down if it takes long. Storage that refuses is no reason to stop."""
        if not self._speaks:
            return
        now = time.monotonic()
        with suppress(OSError):
            if done >= total:
                if self._written:
                    (self._folder.path / MEANWHILE_NAME).unlink(missing_ok=True)
                self._since, self._written = now, False
            elif now - self._since >= _EVERY:
                content = {"what": what, "done": done, "total": total, "unit": unit}
                self._folder.write(MEANWHILE_NAME, json.dumps(content))
                self._since, self._written = now, True
