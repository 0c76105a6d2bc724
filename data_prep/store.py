"""The first pass: every record of the source into shards, in order, each shard final once it is finished.

Beside the shards grows a journal with one line per finished shard. A preparation that is killed goes on behind the last
line: what follows from it, and it alone, is made again, with the same bytes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from data_prep.encode import Encoded, Outcome
from data_prep.facts import FactsTable, RecordFacts, facts_path
from data_prep.sources.base import Rejection
from rung.data.index import index_path
from rung.data.record import Reason
from rung.data.shard import ShardInfo, ShardWriter, data_path, file_sha256, sync_folder

JOURNAL: Final = "journal.jsonl"


class Journal:
    """What is finished in an unfinished folder.

    Args:
        folder: of the shards.
        identity: of the input and the settings; what was made from others is not gone on with.

    Attributes:
        shards: those that are finished, in order.
        was_other: whether the folder was begun with another identity; it then counts as empty.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._path = folder / JOURNAL
        self.shards: list[ShardInfo] = []
        # What was read from JSON is compared with what would be read: tuples are lists there.
        wanted = json.loads(json.dumps(identity))
        lines = _whole_lines(self._path)
        self.was_other = bool(lines) and lines[0] != wanted
        if lines and not self.was_other:
            self.shards = [ShardInfo(**line) for line in lines[1:]]
        _write_synced(self._path, [wanted, *map(asdict, self.shards)])

    def add(self, shard: ShardInfo) -> None:
        """Note a finished shard."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(shard)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.shards.append(shard)


class ShardStore:
    """Stores outcomes behind the shards that are finished already.

    Use as a context manager: leaving it by an exception removes the unfinished shard and keeps the finished ones.

    Args:
        folder: of the shards; what belongs to none that is finished is removed.
        journal: of the folder.
        max_bytes: size of its records at which a shard is finished.

    Attributes:
        next_frame: number of the raw frame whose outcome comes next.
    """

    def __init__(self, folder: Path, journal: Journal, max_bytes: float) -> None:
        self._folder = folder
        self._journal = journal
        self._max_bytes = max_bytes
        _remove_unfinished(folder, [shard.name for shard in journal.shards])
        self._open()
        self._num_kept = sum(shard.num_records for shard in journal.shards)
        self._num_rejected = self.next_frame - self._num_kept

    @property
    def next_frame(self) -> int:
        """See the class."""
        return self._first_frame + self._num_frames

    def counts(self) -> str:
        """Records that nothing was found against so far, and frames and records that are set aside, in words."""
        return f"{self._num_kept:,} kept, {self._num_rejected:,} rejected"

    def _open(self) -> None:
        shards = self._journal.shards
        self._name = f"shard-{len(shards):05d}"
        self._first_frame = shards[-1].first_frame + shards[-1].num_frames if shards else 0
        self._num_frames = 0
        self._facts: list[RecordFacts] = []
        self._writer: ShardWriter | None = None
        self._rejections = rejections_path(self._folder, self._name).open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rejections.close()
        if self._writer is not None:
            self._writer.discard()

    def add(self, outcome: Outcome) -> None:
        """Take in the outcome of the next raw frame."""
        self._num_frames += 1
        if isinstance(outcome, Encoded):
            self._store(outcome)
            return
        self._num_rejected += 1
        self._rejections.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")

    def finish(self) -> None:
        """Finish the last shard."""
        if self._writer is not None:
            self._finish_shard(self._writer)
        self._rejections.close()

    def _store(self, encoded: Encoded) -> None:
        if self._writer is None:
            self._writer = ShardWriter(self._folder, self._name)
        self._writer.add(encoded.entry)
        self._facts.append(encoded.facts)
        if encoded.facts.refusal is None:
            self._num_kept += 1
        else:
            self._num_rejected += 1
        if self._writer.num_bytes >= self._max_bytes:
            self._finish_shard(self._writer)

    def _finish_shard(self, writer: ShardWriter) -> None:
        self._rejections.flush()
        os.fsync(self._rejections.fileno())
        self._rejections.close()
        facts = facts_path(self._folder, self._name)
        FactsTable.of(self._facts).save(facts)
        info = replace(
            writer.finish(),
            facts_sha256=file_sha256(facts),
            first_frame=self._first_frame,
            num_frames=self._num_frames,
        )
        self._journal.add(info)
        self._open()


def rejections_path(folder: Path, shard: str) -> Path:
    """List of the frames without a record among those of a shard, while the set is being made."""
    return folder / f"{shard}.rejected.jsonl"


def is_leftover(path: Path) -> bool:
    """Whether a file of a finished set is one that only an unfinished one needs."""
    return path.name == JOURNAL or path.match(rejections_path(Path(), "*").name)


def read_rejections(folder: Path) -> Iterator[Rejection]:
    """All frames without a record, in the order of the source."""
    for path in sorted(folder.glob(rejections_path(folder, "*").name)):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                values = json.loads(line)
                yield Rejection(**values | {"reason": Reason(values["reason"])})


def _remove_unfinished(folder: Path, finished: Iterable[str]) -> None:
    """Remove whatever does not belong to a finished shard."""
    kept = {JOURNAL}
    for name in finished:
        paths = (data_path, index_path, facts_path, rejections_path)
        kept.update(path(folder, name).name for path in paths)
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def _whole_lines(path: Path) -> list[Any]:
    """The lines of a journal; a last one that was cut by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _write_synced(path: Path, lines: Iterable[Any]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
