"""The output folder: written under another name beside it and renamed when complete, so that no half of one is seen."""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class OutputError(ValueError):
    """The output folder cannot be used or written."""


@contextmanager
def partial_folder(output: Path) -> Iterator[Path]:
    """Give the folder beside `output` that becomes it when `publish` renames it.

    It keeps what is finished when the process is killed or interrupted, or when the disk is full, for the same command
    to go on with; every other exception means that no such command can succeed, and removes it.

    Raises:
        OutputError: another process prepares the same output, or the disk is full or not writable.
    """
    partial = output.with_name(f".{output.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(partial, output):
            try:
                yield partial
            except (OSError, UnfinishedError):
                raise
            except Exception:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise OutputError(
            f"cannot write output {output}: {error.strerror or error}{_free_space(output.parent)}. What is finished is"
            f" kept in {partial}: make room and run the same command to go on, or set output to another folder"
        ) from error


class UnfinishedError(RuntimeError):
    """A preparation that stopped in the middle, and that the same command goes on with."""


def publish(partial: Path, output: Path) -> None:
    """Give a complete folder its name; an empty folder of that name is replaced."""
    partial.replace(output)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file and bring it to disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(f"another process is preparing {output}: wait for it, or set another output") from error
    except OSError as error:
        logger.warning(
            "%s: this file system has no locks (%s); prepare one set at a time there", output, error.strerror
        )
    try:
        yield
    finally:
        os.close(descriptor)


def _free_space(folder: Path) -> str:
    """How full the disk is, as LMDB reports a full one as an input/output error."""
    try:
        return f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB free)"
    except OSError:
        return ""
