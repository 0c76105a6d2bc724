"""prepare: raw frames -> records -> graphs -> shards, with bounded memory, and at any moment ready to be killed.

First pass: an `Encoder`, which is pure, turns chunks of raw frames into encoded records and rejections; any ordered map
may run it. One process stores what comes back. Second pass: with all records in place, it is decided which of them are
used, and for what. Nothing depends on who did the work, or on how often it was interrupted.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data_prep.encode import Encoder, Outcome
from data_prep.filters import reasons_text
from data_prep.finish import finish
from data_prep.manifest import Origin, check_same_content, content_config
from data_prep.output import OutputError, partial_folder, publish, write_json
from data_prep.parallel import map_over_processes
from data_prep.progress import Progress
from data_prep.quarantine_file import QUARANTINE, QuarantineCounts
from data_prep.report import REPORT, write_report
from data_prep.sources.base import RawFrame, Source
from data_prep.sources.registry import open_source
from data_prep.store import Journal, ShardStore, is_leftover, read_rejections
from data_prep.summary import SUMMARY, PrepareSummary
from rung.config.tree import PrepareConfig
from rung.data.dataset import MANIFEST_NAME, read_manifest

logger = logging.getLogger(__name__)


class NoUsableRecordError(ValueError):
    """Every record of the input was rejected, or there was none."""


ChunkMap = Callable[[Encoder, Iterable[Sequence[RawFrame]]], Iterable[list[Outcome]]]
"""A lazy map that keeps the order, as the built-in one does."""


def prepare(config: PrepareConfig, run_chunks: ChunkMap | None = None) -> PrepareSummary:
    """Turn a raw data set into shards. The output appears whole, or not at all.

    A second call with the same config finds the data set and does nothing; after a call that was killed, it goes on.

    Args:
        config: what to read, how, and where to.
        run_chunks: runs the work on the chunks; by default, processes of this machine do.

    Raises:
        BrokenFileError: the input cannot be read.
        NoUsableRecordError: nothing in it could be used.
        LabelsLieError: its energies are not those of the functional that it states.
        WrongUnitError: its labels are in another unit than its kind of source holds.
        OutputError: the output cannot be written, or holds something else.
        ShardError: the output holds a data set of another version, or a damaged one.
        UnfinishedError: a worker was lost; the same call goes on behind what is finished.
        ValueError: source.functional or source.elements names what is not known.
    """
    output = Path(config.output).expanduser().absolute()
    done = _already_prepared(output, config)
    if done is not None:
        logger.info("already prepared: %s holds %s records", output, f"{done.records_kept:,}")
        return done
    with closing(open_source(config.source)) as source, partial_folder(output) as folder:
        summary = _convert(config, source, folder, run_chunks or _on_this_machine(config))
        publish(folder, output)
        _remove_leftovers(output)
    logger.info(
        "%s: %s records kept, %s rejected, %.0f records/s; look at %s",
        output,
        f"{summary.records_kept:,}",
        f"{summary.records_read - summary.records_kept:,}",
        summary.records_read / max(summary.seconds, 1e-9),
        output / REPORT,
    )
    return summary


def _on_this_machine(config: PrepareConfig) -> ChunkMap:
    workers = config.parallel.workers
    return lambda work, chunks: map_over_processes(work, chunks, workers)


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
    _remove_leftovers(output)
    return _summary(output, output, manifest.model_dump(), seconds=0.0, reused=True)


def _convert(config: PrepareConfig, source: Source, folder: Path, run_chunks: ChunkMap) -> PrepareSummary:
    """Fill the folder: shards, then decisions, quarantine, manifest and summary."""
    start = time.monotonic()
    output = Path(config.output).expanduser().absolute()
    journal = Journal(folder, {"config": content_config(config), "input": source.identity()})
    _tell_of_earlier(journal, folder)
    with ShardStore(folder, journal, config.shards.max_mb * 1e6) as store:
        with Progress(source.name, source.progress, store.counts) as progress:
            for outcome in _outcomes(config, source, run_chunks, store.next_frame, progress):
                store.add(outcome)
        store.finish()
    if not journal.shards:
        raise NoUsableRecordError(_why_nothing(config, _counted(folder)))
    records = sum(shard.num_records for shard in journal.shards)
    logger.info("looking at all %s records together: repetitions, outliers, splits", f"{records:,}")
    facts = {**config.source.model_dump(mode="json"), "dataset": source.name, **source.facts()}
    origin = Origin(config=content_config(config), source=facts)
    manifest, quarantine = finish(folder, journal.shards, read_rejections(folder), origin)
    if not manifest["counts"]["kept"]:
        raise NoUsableRecordError(_why_nothing(config, quarantine))
    _warn(manifest, output)
    summary = _summary(output, folder, manifest, seconds=time.monotonic() - start)
    write_json(folder / SUMMARY, summary.to_json())
    write_report(folder)
    return summary


def _outcomes(
    config: PrepareConfig, source: Source, run_chunks: ChunkMap, first: int, progress: Progress
) -> Iterator[Outcome]:
    """Stream the outcomes of the raw frames from number `first` on, in order.

    Chunks begin at the same frames however often the preparation was interrupted: a parser may label a chunk together.
    """
    whole_chunks = first - first % source.chunk
    frames = islice(source.frames(), config.source.limit)
    chunks = progress.chunks(frames, source.chunk, skip=whole_chunks)
    outcomes = run_chunks(Encoder(source.parser, config.graph, config.filters), chunks)
    return islice(progress.counted(chain.from_iterable(outcomes)), first - whole_chunks, None)


def _remove_leftovers(output: Path) -> None:
    """Remove what only an unfinished set needs."""
    for path in output.iterdir():
        if is_leftover(path):
            path.unlink()


def _summary(
    output: Path, folder: Path, manifest: Mapping[str, Any], seconds: float, *, reused: bool = False
) -> PrepareSummary:
    counts = manifest["counts"]
    return PrepareSummary(
        output=output,
        records_read=counts["read"],
        records_kept=counts["kept"],
        records_rejected=counts["rejected"],
        shards=len(manifest["shards"]),
        num_bytes=sum(path.stat().st_size for path in folder.glob("shard-*") if not is_leftover(path)),
        seconds=seconds,
        reused=reused,
    )


def _counted(folder: Path) -> QuarantineCounts:
    """Count the frames without a record of a set that has no records at all."""
    counts = QuarantineCounts()
    for rejection in read_rejections(folder):
        counts.add(rejection.reason.value, rejection.frame_id or rejection.material_id, rejection.detail)
    return counts


def _why_nothing(config: PrepareConfig, found: QuarantineCounts) -> str:
    where = ", ".join(config.source.paths) or "the source"
    if not found.by_reason:
        return f"{where} has no records of the kind {config.source.kind!r}: check source.path and source.kind"
    examples = "; ".join(f"{reason}: {example}" for reason, example in found.examples.items())
    return (
        f"no usable record among the {found.by_reason.total():,} of {where}: {reasons_text(found.by_reason)}."
        f" First of each reason: {examples}"
    )


def _tell_of_earlier(journal: Journal, folder: Path) -> None:
    if journal.was_other:
        logger.warning("%s was begun with other settings or another input: beginning anew", folder)
    elif journal.shards:
        last = journal.shards[-1]
        frames = f"{last.first_frame + last.num_frames:,}"
        logger.info("going on behind %d finished shards, at record %s of the input", len(journal.shards), frames)


def _warn(manifest: Mapping[str, Any], output: Path) -> None:
    """Say what a user should know before training on the set."""
    counts, energy_keys = manifest["counts"], manifest["labels"]["energy_keys"]
    rejected = counts["read"] - counts["kept"]
    if rejected:
        logger.warning(
            "%s of %s records rejected (%s); each is listed in %s",
            f"{rejected:,}",
            f"{counts['read']:,}",
            reasons_text(counts["rejected"]),
            output / QUARANTINE,
        )
    if len(energy_keys) > 1:
        logger.warning(
            "energies come from different keys (%s): corrected and uncorrected energies do not mix in one set",
            reasons_text(energy_keys),
        )
