"""Makes damaged or missing shards of a data set again from its source, byte for byte as the manifest lists them.

python -m data_prep.repair FOLDER [--source PATH]
"""

import argparse
import logging
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from data_prep.encode import Encoded, Encoder, Outcome
from data_prep.facts import FactsTable, RecordFacts, facts_path
from data_prep.finish import decide_again
from data_prep.progress import Progress
from data_prep.sources.base import Source
from data_prep.sources.registry import open_source
from data_prep.verify import file_problems
from rung.config.command import is_for_the_user
from rung.config.logs import configure_logging
from rung.config.preparation import FilterConfig, SourceConfig
from rung.data.dataset import Manifest, read_manifest
from rung.data.index import Index, index_path, write_splits
from rung.data.shard import ShardInfo, ShardWriter, data_path, file_sha256

logger = logging.getLogger("data_prep.repair")  # also when it is run as a program


_CURE: Final = "the source has changed, or another version of Rung made the set; prepare the data again"


class RepairError(ValueError):
    """A data set that cannot be made whole again from its source."""


def repair(folder: Path, source_path: str | None = None) -> list[str]:
    """Make damaged shards again; returns the names of the shards that were made again.

    Args:
        folder: of the data set; its manifest has to be whole.
        source_path: where the source lies now, if it has moved.

    Raises:
        ShardError: the folder holds no data set.
        RepairError: the source is not the one that the set was made from, or a shard comes out otherwise.
        BrokenFileError: the source cannot be read.
        OSError: the folder cannot be written.
    """
    manifest, _ = read_manifest(folder)
    broken = {shard.name for shard, _ in file_problems(folder, manifest)}
    damaged = [shard for shard in manifest.shards if shard.name in broken]
    if not damaged:
        return []
    config = SourceConfig.model_validate(manifest.config["source"])
    if source_path is not None:
        config = config.model_copy(update={"path": source_path})
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=folder) as scratch:
        with closing(open_source(config)) as source:
            _make_again(source, manifest, damaged, Path(scratch))
            _check_same_source(source, manifest)
        return _put_in_place(folder, manifest, damaged, Path(scratch))


def _make_again(source: Source, manifest: Manifest, damaged: Sequence[ShardInfo], scratch: Path) -> None:
    """Run the first pass over the frames of the damaged shards alone; there has to be one."""
    encoder = Encoder(source.parser, manifest.graph, FilterConfig(**manifest.config["filters"]))
    frames = islice(source.frames(), manifest.config["source"]["limit"])
    remaining = deque(damaged)
    with Progress(source.name, source.progress, lambda: f"{len(remaining)} shards left") as progress:
        made = _Remake(scratch, remaining[0].name)
        first = 0
        for chunk in progress.chunks(frames, source.chunk, skip=0):
            outcomes = encoder(chunk) if first + len(chunk) > remaining[0].first_frame else [None] * len(chunk)
            for number, outcome in enumerate(progress.counted(outcomes), start=first):
                if number == remaining[0].first_frame + remaining[0].num_frames:
                    made.finish()
                    remaining.popleft()
                    if not remaining:
                        return
                    made = _Remake(scratch, remaining[0].name)
                if number >= remaining[0].first_frame and outcome is not None:
                    made.add(outcome)
            first += len(chunk)
        made.finish()


class _Remake:
    """A shard in the making, beside the data set."""

    def __init__(self, scratch: Path, name: str) -> None:
        self._facts_path = facts_path(scratch, name)
        self._writer = ShardWriter(scratch, name)
        self._facts: list[RecordFacts] = []

    def add(self, outcome: Outcome) -> None:
        if isinstance(outcome, Encoded):
            self._writer.add(outcome.entry)
            self._facts.append(outcome.facts)

    def finish(self) -> None:
        if self._facts:
            self._writer.finish()
        self._writer.discard()
        FactsTable.of(self._facts).save(self._facts_path)


def _check_same_source(source: Source, manifest: Manifest) -> None:
    for key, found in source.facts().items():
        if key in ("sha256", "files") and found != manifest.source.get(key):
            raise RepairError(
                f"the source has {key} {found!r:.90}, the data set was made from {manifest.source.get(key)!r:.90}: give"
                " the original with --source, or prepare the data again"
            )


def _put_in_place(folder: Path, manifest: Manifest, damaged: Sequence[ShardInfo], scratch: Path) -> list[str]:
    """Check what was made against the manifest; only then replace anything. The indices get their splits last."""
    for shard in damaged:
        for path, sha256 in (
            (data_path(scratch, shard.name), shard.lmdb_sha256),
            (facts_path(scratch, shard.name), shard.facts_sha256),
        ):
            if not path.is_file() or file_sha256(path) != sha256:
                raise RepairError(f"{path.name} comes out otherwise than the manifest lists it: {_CURE}")
    names = [shard.name for shard in manifest.shards]
    for shard in damaged:
        for path in (data_path, facts_path, index_path):
            path(scratch, shard.name).replace(path(folder, shard.name))
    index = Index(folder, names)
    splits = np.split(decide_again(manifest, index, FactsTable.load(folder, names)).split, np.cumsum(index.shard_sizes))
    for shard in damaged:
        path = index_path(folder, shard.name)
        write_splits(path, splits[names.index(shard.name)])
        if file_sha256(path) != shard.index_sha256:
            raise RepairError(f"{path.name} comes out otherwise than the manifest lists it: {_CURE}")
    return [shard.name for shard in damaged]


def main(argv: Sequence[str] | None = None) -> int:
    """Repair the folder named on the command line; 0 if it is sound now, 2 if it cannot be repaired."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.repair", description="Make damaged shards again.")
    parser.add_argument("folder", type=Path, help="folder that prepare_data wrote")
    parser.add_argument("--source", help="the raw file, where it has moved since")
    configure_logging()
    arguments = parser.parse_args(argv)
    try:
        repaired = repair(arguments.folder, arguments.source)
    except (ValueError, OSError) as error:
        if not is_for_the_user(error):
            raise
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 2
    logger.info("%s: %s", arguments.folder, f"made again: {', '.join(repaired)}" if repaired else "nothing is damaged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
