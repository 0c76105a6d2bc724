"""Checkpoints: the whole state of a run, written so that a crash at any moment leaves the newest whole one to be found.

A checkpoint is a folder `step-00000120` with `state.pt` (tensors and plain values, loaded with `weights_only=True`) and
`manifest.json` (format version, step, size and sha256 of the state, metrics). It is written under a temporary name,
synced and renamed; one without a manifest, or whose state does not match it, is not there. States of older formats are
upgraded while they are loaded, by one function per version (`rung.training.upgrades`).
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rung.training.metrics import Metrics
from rung.training.packing import PackedState, pack, unpack
from rung.training.upgrades import FORMAT_VERSION, PACKED_SINCE, upgraded

logger = logging.getLogger(__name__)

_STATE = "state.pt"
_MANIFEST = "manifest.json"
_BEST = "best.json"
_REPLACED = ".replaced"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint's manifest.

    Attributes:
        format_version: of the state.
        step: finished global steps.
        state_bytes: size of `state.pt`.
        state_sha256: its hash, hexadecimal.
        metrics: errors on the validation records; empty within an epoch.
    """

    format_version: int
    step: int
    state_bytes: int
    state_sha256: str
    metrics: Metrics


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: the run's `checkpoints` folder; made when the first checkpoint is saved.
        keep: how many of the newest checkpoints survive besides the best.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """Folder of the checkpoint at a global step."""
        return self.folder / f"step-{step:08d}"

    def save(self, state: dict[str, Any] | PackedState, step: int, metrics: Metrics, *, best: bool) -> Path:
        """Write a checkpoint; mark it as the best so far if told to; remove those no longer kept. Returns its folder.

        Raises:
            OSError, RuntimeError: the storage refused (full, read-only, gone). Earlier checkpoints are untouched.
            TypeError: the state holds something that cannot be packed.
        """
        final = self.path(step)
        temporary = final.with_name(f".{final.name}.tmp-{os.getpid()}")
        replaced = final.with_name(f".{final.name}{_REPLACED}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            packed = state if isinstance(state, PackedState) else pack(state)
            self._write(temporary, packed, step, metrics)
            if final.exists():
                final.replace(replaced)
            temporary.replace(final)
            _sync(self.folder)
            if best:
                _write_synced(self.folder / _BEST, json.dumps({"step": step, "metrics": metrics}))
        except (OSError, RuntimeError):  # torch.save reports a full disk as RuntimeError
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
        self._prune()
        return final

    def _write(self, folder: Path, state: PackedState, step: int, metrics: Metrics) -> None:
        state_path = folder / _STATE
        with state_path.open("wb") as file:
            torch.save(state.content(), file)
            file.flush()
            os.fsync(file.fileno())
        record = CheckpointRecord(FORMAT_VERSION, step, state_path.stat().st_size, _sha256(state_path), metrics)
        _write_synced(folder / _MANIFEST, json.dumps(asdict(record), indent=1))

    def steps(self) -> list[int]:
        """Global steps of all checkpoints that have a manifest, ascending."""
        return sorted(int(path.parent.name.removeprefix("step-")) for path in self.folder.glob(f"step-*/{_MANIFEST}"))

    def newest(self) -> dict[str, Any] | None:
        """Load the newest whole checkpoint, if there is one; damaged ones are named in the log and passed over.

        Raises:
            NewerFormatError: a newer Rung wrote it.
        """
        self._bring_back()
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except NewerFormatError:
                raise
            except CheckpointError as error:
                logger.warning("%s; going back to the checkpoint before it", error)
        return None

    def best_step(self) -> int | None:
        """Global step of the best checkpoint, if one was marked."""
        path = self.folder / _BEST
        return json.loads(path.read_text())["step"] if path.exists() else None

    def load(self, step: int) -> dict[str, Any]:
        """Load the state at a step, its tensors on the CPU.

        Raises:
            CheckpointError: absent or damaged.
            NewerFormatError: a newer Rung wrote it.
        """
        folder = self.path(step)
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{folder} has no readable manifest: {error}") from error
        if manifest.get("format_version", 0) > FORMAT_VERSION:
            raise NewerFormatError(
                f"{folder} has checkpoint format {manifest['format_version']}; this Rung reads up to {FORMAT_VERSION}:"
                " use the Rung that wrote it, or a newer one"
            )
        state_path = folder / _STATE
        if not state_path.exists() or _sha256(state_path) != manifest["state_sha256"]:
            raise CheckpointError(f"{state_path} is damaged: it does not match the hash in its manifest")
        content = torch.load(state_path, map_location="cpu", weights_only=True)
        version = manifest["format_version"]
        return upgraded(unpack(content) if version >= PACKED_SINCE else content, version)

    def _bring_back(self) -> None:
        """Give a checkpoint its name back if its writer died between taking it away and giving it to the new one."""
        for aside in self.folder.glob(f".step-*{_REPLACED}"):
            final = self.folder / aside.name.removeprefix(".").removesuffix(_REPLACED)
            if not final.exists():
                with contextlib.suppress(OSError):  # another rank may be quicker
                    aside.replace(final)

    def _prune(self) -> None:
        keep = {*self.steps()[-self.keep :], self.best_step()}
        for step in self.steps():
            if step not in keep:
                shutil.rmtree(self.path(step), ignore_errors=True)


class NewerFormatError(CheckpointError):
    """A checkpoint written by a newer Rung. Never passed over, or the run would silently start from older weights."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_synced(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
