"""Writing to storage that refuses for a while: full disks, file servers that restart, expired mounts."""

import logging
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.5  # s
_LONGEST_PAUSE: Final = 30.0  # s


class StorageError(Exception):
    """Storage refused for longer than the config allows: the run failed, and its config is not at fault."""


def insist(write: Callable[[], object], what: str, patience: float) -> None:
    """Call `write` until it succeeds, with growing pauses and a warning for the first refusal.

    Args:
        write: raises OSError or RuntimeError (torch's for a full disk) while the storage refuses.
        what: is written, for messages.
        patience: seconds to go on trying after the first refusal (`faults.storage_patience`).

    Raises:
        StorageError: after the patience, from the last refusal.
    """
    first_refusal, pause = None, _FIRST_PAUSE
    while True:
        try:
            write()
        except (OSError, RuntimeError) as error:
            now = time.monotonic()
            if first_refusal is None:
                first_refusal = now
                logger.warning(
                    "%s cannot be written: %s. Trying again for up to %g s (faults.storage_patience)",
                    *(what, error, patience),
                )
            left = first_refusal + patience - now
            if left <= 0:
                raise StorageError(
                    f"{what} could not be written for {patience:g} s (faults.storage_patience): {error}. Checkpoints"
                    " that are there are intact: make room, or repair run.storage, then start the same run again"
                ) from error
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            if first_refusal is not None:
                logger.warning("%s is written, after %.0f s of refusals", what, time.monotonic() - first_refusal)
            return
