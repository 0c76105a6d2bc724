"""prepare: raw frames -> records -> graphs -> shards, in one pass and with bounded memory.

The work is one pure function, `encode_chunk`, from some raw frames to encoded records and rejections in the same order.
The rest cuts the stream into chunks and stores what comes back. Whoever has more processes passes another ordered map
and gets the same bytes.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

from tqdm import tqdm

from data_prep.encode import Outcome, encode_chunk
from data_prep.filters import Rejection, SeenFrames, reasons_text
from data_prep.manifest import check_same_content, make_manifest
from data_prep.output import OutputError, partial_folder, publish, write_json
from data_prep.sources.base import RawFrame, Source
from data_prep.sources.registry import open_source
from data_prep.split import split_of
from data_prep.summary import QUARANTINE, SUMMARY, PrepareSummary
from data_prep.tally import Tally
from rung.config.tree import PrepareConfig
from rung.data.dataset import MANIFEST_NAME, read_manifest
from rung.data.record import Reason
from rung.data.shard import ShardEntry, ShardInfo, ShardWriter

logger = logging.getLogger(__name__)


class NoUsableRecordError(ValueError):
    """Every record of the input was rejected, or there was none."""


ChunkMap = Callable[
    [Callable[[Sequence[RawFrame]], list[Outcome]], Iterable[Sequence[RawFrame]]], Iterable[list[Outcome]]
]
"""A lazy map that keeps the order, as the built-in one does."""


def prepare(config: PrepareConfig, run_chunks: ChunkMap = map) -> PrepareSummary:
    """Turn a raw data set into shards. The output appears whole, or not at all.

    A second call with the same config finds the data set and does nothing.

    Args:
        config: what to read, how, and where to.
        run_chunks: runs the work on the chunks.

    Raises:
        BrokenFileError: the input cannot be read.
        NoUsableRecordError: nothing in it could be used.
        OutputError: the output cannot be written, or holds something else.
    """
    output = Path(config.output).expanduser().absolute()
    done = _already_prepared(output, config)
    if done is not None:
        logger.info("already prepared: %s holds %s records", output, f"{done.records_kept:,}")
        return done
    with closing(open_source(config.source)) as source, partial_folder(output) as folder:
        summary = _convert(config, source, folder, output, run_chunks)
        publish(folder, output)
    logger.info(
        "%s: %s records kept, %s rejected, %.0f records/s",
        output,
        f"{summary.records_kept:,}",
        f"{summary.records_read - summary.records_kept:,}",
        summary.records_read / max(summary.seconds, 1e-9),
    )
    return summary


def _already_prepared(output: Path, config: PrepareConfig) -> PrepareSummary | None:
    """Describe the data set at `output` if it is what the config asks for; None where nothing is."""
    if not output.exists():
        return None
    if not output.is_dir():
        raise OutputError(f"output {output} is a file: set output to a folder")
    if not (output / MANIFEST_NAME).exists():
        if any(output.iterdir()):
            raise OutputError(f"output {output} is not empty and holds no data set: set output to another folder")
        return None
    manifest, _ = read_manifest(output)
    check_same_content(manifest, config, output)
    counts = manifest.counts
    return PrepareSummary(
        output=output,
        records_read=counts["read"],
        records_kept=counts["kept"],
        records_rejected=counts["rejected"],
        shards=len(manifest.shards),
        num_bytes=_shard_bytes(output),
        seconds=0.0,
        reused=True,
    )


def _convert(config: PrepareConfig, source: Source, folder: Path, output: Path, run_chunks: ChunkMap) -> PrepareSummary:
    """Fill the folder with shards, quarantine, summary and, last, the manifest."""
    start = time.monotonic()
    tally = Tally()
    outcomes = _outcomes(config, source, run_chunks, tally)
    with _Shards(folder, config.shards.records_per_shard) as shards:
        _store(outcomes, shards, tally, config, folder / QUARANTINE)
        infos = shards.finish()
    if not tally.num_kept:
        raise NoUsableRecordError(_why_nothing(config, tally))
    _warn(tally, output)
    manifest = make_manifest(config, source.name, source.facts(), tally, infos)
    summary = PrepareSummary(
        output=output,
        records_read=tally.num_read,
        records_kept=tally.num_kept,
        records_rejected=dict(sorted(tally.rejected.items())),
        shards=len(infos),
        num_bytes=_shard_bytes(folder),
        seconds=time.monotonic() - start,
    )
    write_json(folder / SUMMARY, summary.to_json())
    write_json(folder / MANIFEST_NAME, manifest)
    return summary


def _outcomes(config: PrepareConfig, source: Source, run_chunks: ChunkMap, tally: Tally) -> Iterator[Outcome]:
    """Stream the outcomes of all raw frames in order, with a progress bar."""
    frames = islice(source.frames(), config.source.limit)
    work = partial(encode_chunk, parser=source.parser, cutoffs=config.graph)
    _, total, unit = source.progress()
    with tqdm(total=total, unit=unit, unit_scale=unit == "B", desc=source.name, disable=None) as bar:
        for outcomes in run_chunks(work, _chunks(frames, source.chunk)):
            yield from outcomes
            done, _, _ = source.progress()
            rate = tally.num_read / max(bar.format_dict["elapsed"], 1e-3)
            bar.set_postfix_str(f"{tally.num_kept:,} kept, {tally.rejected.total():,} rejected, {rate:,.0f} records/s")
            bar.update(done - bar.n)


def _store(
    outcomes: Iterable[Outcome], shards: "_Shards", tally: Tally, config: PrepareConfig, quarantine: Path
) -> None:
    """Store the records, list the rejections, count both."""
    seen = SeenFrames()
    with quarantine.open("w", encoding="utf-8") as rejections:
        for outcome in outcomes:
            checked = _without_repetition(outcome, seen)
            if isinstance(checked, Rejection):
                tally.reject(checked)
                rejections.write(json.dumps(checked.to_json(), ensure_ascii=False) + "\n")
                continue
            row = checked.entry.row
            split = split_of(row.material_id, config.split)
            shards.add(checked.entry, split)
            tally.keep(row, checked.facts, split)


def _without_repetition(outcome: Outcome, seen: SeenFrames) -> Outcome:
    if isinstance(outcome, Rejection):
        return outcome
    row = outcome.entry.row
    if not seen.add(row.material_id, row.frame_id, row.functional):
        return outcome
    detail = f"a frame with these ids and functional {row.functional} came before; the first one is kept"
    return Rejection(row.source, row.material_id, row.frame_id, outcome.position, Reason.DUPLICATE, detail)


class _Shards:
    """Fills one shard after the other. Leaving it by an exception removes the unfinished one."""

    def __init__(self, folder: Path, records_per_shard: int) -> None:
        self._folder = folder
        self._records_per_shard = records_per_shard
        self._writer: ShardWriter | None = None
        self._finished: list[ShardInfo] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.discard()

    def add(self, entry: ShardEntry, split: int) -> None:
        """Store a record in the shard that is being filled."""
        if self._writer is None:
            self._writer = ShardWriter(self._folder, f"shard-{len(self._finished):05d}")
        self._writer.add(entry, split)
        if len(self._writer) == self._records_per_shard:
            self._finish_shard(self._writer)

    def finish(self) -> list[ShardInfo]:
        """Finish the last shard and describe all of them."""
        if self._writer is not None:
            self._finish_shard(self._writer)
        return self._finished

    def _finish_shard(self, writer: ShardWriter) -> None:
        self._finished.append(writer.finish())
        self._writer = None


def _chunks(frames: Iterator[RawFrame], size: int) -> Iterator[list[RawFrame]]:
    while chunk := list(islice(frames, size)):
        yield chunk


def _shard_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("shard-*"))


def _why_nothing(config: PrepareConfig, tally: Tally) -> str:
    where = config.source.path or "the surrogate"
    if not tally.num_read:
        return f"{where} has no records of the kind {config.source.kind!r}: check source.path and source.kind"
    examples = "; ".join(
        f"{reason}: {example.frame_id or example.material_id} ({example.detail})"
        for reason, example in tally.examples.items()
    )
    return (
        f"no usable record among the {tally.num_read:,} of {where}: {reasons_text(tally.rejected)}."
        f" First of each reason: {examples}"
    )


def _warn(tally: Tally, output: Path) -> None:
    """Say what a user should know before training on the set."""
    if tally.rejected:
        logger.warning(
            "%s of %s records rejected (%s); each is listed in %s",
            f"{tally.rejected.total():,}",
            f"{tally.num_read:,}",
            reasons_text(tally.rejected),
            output / QUARANTINE,
        )
    if len(tally.energy_keys) > 1:
        logger.warning(
            "energies come from different keys (%s): corrected and uncorrected energies do not mix in one set",
            reasons_text(tally.energy_keys),
        )
