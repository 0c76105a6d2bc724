"""Checks of folders and of what is in them: storage, free disk, prepared data, raw files, weights."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

from rung.data.dataset import ShardDataset
from rung.data.index import SPLITS
from rung.data.staging import is_url, manifest_hash
from rung.model.support import cutoffs_of
from rung.orchestration.checkup.finding import Finding, Subject, note, ok, problem, refusal
from rung.orchestration.paths import existing_folder, require_writable
from rung.training.initial import load_model

_SCARCE, _TOO_LITTLE = 10 * 2**30, 2**30  # bytes: of a run with some checkpoints, and of a single one with its data

_RAY_FOLDER: Final = Path(tempfile.gettempdir())
"""Ray keeps its logs and spilled objects below it."""


def check_storage(subject: Subject) -> Finding:
    """Whether the job's folder can be made, and files appear in it whole."""
    key, path = subject.output
    folder = Path(path).expanduser().absolute()
    try:
        there = require_writable(key, folder)
    except ValueError as error:
        return refusal(error, f"correct {key}")
    with tempfile.TemporaryDirectory(prefix=".rung-doctor-", dir=there) as scratch:
        first, second = Path(scratch) / "first", Path(scratch) / "second"
        first.write_text("new")
        second.write_text("old")
        first.replace(second)
        whole = second.read_text() == "new" and not first.exists()
    if not whole:
        return problem(
            f"{key} {folder}: files cannot be renamed over others there", f"set {key} to another file system"
        )
    state = "can be written" if there == folder else f"can be made in {there}"
    return ok(f"{key} {folder} {state}, and files replace others there at once")


def check_disk(subject: Subject) -> Finding:
    """Room for what the job writes, and for Ray's own files."""
    key, path = subject.output
    places = {key: existing_folder(Path(path).expanduser().absolute()), "temporary files": _RAY_FOLDER}
    free = {name: shutil.disk_usage(place).free for name, place in places.items()}
    found = "; ".join(f"{free[name] / 2**30:.1f} GiB free for {name} ({place})" for name, place in places.items())
    advice = f"make room, set {key} to another disk, or TMPDIR for temporary files"
    if min(free.values()) < _TOO_LITTLE:
        return problem(found, advice)
    return note(found, advice) if min(free.values()) < _SCARCE else ok(found)


def check_data(subject: Subject) -> Finding:
    """Whether every data set opens, and its manifest and files belong together."""
    if not subject.data:
        return ok("no prepared data set is read" if subject.kind else "give --config FILE to look at its data")
    found = []
    for key, config in subject.data.items():
        try:
            found.append(_opened(key, config.path))
        except (ValueError, OSError) as error:
            return refusal(error, f"prepare the data first, or correct {key}.path")
    return ok("; ".join(found))


def _opened(key: str, path: str) -> str:
    if is_url(path):
        return f"{key}.path {path}: its manifest can be read ({manifest_hash(path)[:12]})"
    dataset = ShardDataset(path)
    splits = ", ".join(f"{len(dataset.select(split)):,} {split}" for split in SPLITS)
    functionals = " and ".join(dataset.manifest.functionals) or "no functional"
    return f"{key}.path {path}: {splits} records, {functionals}"


def check_raw_files(subject: Subject) -> Finding:
    """Whether what the job reads is there."""
    if not subject.sources:
        return ok("none are read" if subject.kind else "give --config FILE to look for its files")
    for key, path in subject.sources.items():
        if not Path(path).expanduser().exists():
            return problem(f"{key} {path} does not exist (current folder: {Path.cwd()})", f"correct {key}")
    return ok(", ".join(f"{key} {path} is there" for key, path in subject.sources.items()))


def check_weights(subject: Subject) -> Finding:
    """Whether the weights that a run starts from load, and fit the data."""
    model = subject.model
    if model is None:
        return ok("no run starts here" if subject.kind else "give --config FILE to look at its weights")
    try:
        network = load_model(model)
        for config in subject.data.values():
            if not is_url(config.path) and Path(config.path).expanduser().is_dir():
                ShardDataset(config.path).check_cutoffs(cutoffs_of(network))
    except (ValueError, OSError) as error:
        return refusal(error, f"correct model.init {model.init}")
    count = sum(weights.numel() for weights in network.parameters())
    start = "random weights" if model.init == "none" else f"the weights of {model.init}"
    return ok(f"{start}, {count:,} parameters")
