"""Which code a run was started with."""

import json
import os
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Final

from rung.training.run import SOURCE_NAME, RunFolder

COMMIT_VARIABLE: Final = "RUNG_GIT_COMMIT"
"""Environment variable that names the commit where there is no repository: in an image, say."""

_SECONDS: Final = 10


@cache
def source_state() -> dict[str, str]:
    """Commit of the code, and whether it was changed since; empty where nobody knows."""
    stated = os.environ.get(COMMIT_VARIABLE)
    if stated:
        return {"commit": stated}
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {"commit": commit, "changed": "true" if _git("status", "--porcelain", "--untracked-files=no") else "false"}


def note_source(folder: RunFolder) -> None:
    """Keep the code's state in the run's folder, one entry for each start of it."""
    path = folder.path / SOURCE_NAME
    starts = json.loads(path.read_text()) if path.exists() else []
    folder.write(SOURCE_NAME, json.dumps([*starts, {"time": time.time(), **source_state()}], indent=1))


def _git(*arguments: str) -> str | None:
    folder = str(Path(__file__).parent)
    try:
        done = subprocess.run(  # noqa: S603 (fixed arguments)
            ["git", "-C", folder, *arguments],  # noqa: S607 (the user's own git)
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
