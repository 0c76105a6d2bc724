"""Reads what a preparation set aside, and puts it back.

python -m data_prep.quarantine FOLDER list
python -m data_prep.quarantine FOLDER show [--reason REASON] [--id MATERIAL/FRAME]
python -m data_prep.quarantine FOLDER restore [--reason REASON] [--id MATERIAL/FRAME] [--dry-run]
python -m data_prep.quarantine FOLDER export FILE [--reason REASON]
"""

import argparse
import json
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.facts import facts_path
from data_prep.filters import reasons_text
from data_prep.finish import finish
from data_prep.manifest import Origin
from data_prep.output import partial_folder, write_json
from data_prep.quarantine_file import read_quarantine, unreadable_frames
from data_prep.report import write_report
from data_prep.summary import SUMMARY
from rung.config.command import is_for_the_user
from rung.config.logs import configure_logging
from rung.data.dataset import read_manifest
from rung.data.index import index_path
from rung.data.record import Reason
from rung.data.shard import data_path

logger = logging.getLogger("data_prep.quarantine")  # also when it is run as a program


class NotThereError(ValueError):
    """Nothing in the quarantine is what was asked for."""


def lines_of(folder: Path, reason: Reason | None = None, name: str | None = None) -> Iterator[dict[str, Any]]:
    """The lines of a quarantine, or those with a reason or of a material or frame.

    Args:
        folder: of the data set.
        reason: of the lines; any if None.
        name: material, or material/frame; any if None.

    Raises:
        ShardError: it is missing or damaged.
    """
    for line in read_quarantine(folder):
        names = (line["material_id"], f"{line['material_id']}/{line['frame_id']}")
        if reason in (None, line["reason"]) and (name is None or name in names):
            yield line


def restore(folder: Path, record_ids: Sequence[int]) -> dict[str, Any]:
    """Put records back into the data set, whatever the filters say of them; returns the new manifest.

    The records lie in their shards already, so their source is not needed. The set becomes another one: its manifest
    changes, and a training run that was begun on the old one does not go on with it unnoticed.

    Raises:
        NotThereError: a record is not in the quarantine.
        ShardError: the folder holds no data set.
        LabelsLieError: with these records, most of a functional have energies of another one.
        WrongUnitError: with these records, most labels are in another unit.
        OutputError: it cannot be written.
    """
    folder = folder.expanduser().absolute()
    manifest, _ = read_manifest(folder)
    aside = {line["record_id"] for line in read_quarantine(folder)}
    if absent := sorted(set(record_ids) - aside):
        raise NotThereError(f"record {absent[0]} is not in the quarantine of {folder}")
    restored = sorted({*manifest.restored, *record_ids})
    origin = Origin(config=manifest.config, source=manifest.source, restored=restored)
    with partial_folder(folder) as partial:
        for path in partial.iterdir():
            path.unlink()
        for shard in manifest.shards:
            # The records stay as they are, under a second name; the index gets other splits.
            for path in (data_path, facts_path):
                _link(path(folder, shard.name), path(partial, shard.name))
            shutil.copy2(index_path(folder, shard.name), index_path(partial, shard.name))
        new, _ = finish(partial, manifest.shards, unreadable_frames(folder), origin)
        summary = json.loads((folder / SUMMARY).read_text())
        counts = {"records_kept": new["counts"]["kept"], "records_rejected_by_reason": new["counts"]["rejected"]}
        rejected = sum(new["counts"]["rejected"].values())
        write_json(partial / SUMMARY, summary | counts | {"records_rejected": rejected})
        write_report(partial)
        _exchange(partial, folder)
    return new


def _link(path: Path, link: Path) -> None:
    try:
        os.link(path, link)
    except OSError:  # a file system without links
        shutil.copy2(path, link)


def _exchange(partial: Path, folder: Path) -> None:
    """Put the new folder in the place of the old one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.replace(old)
    partial.replace(folder)
    shutil.rmtree(old)


def _list(folder: Path) -> None:
    counts: Counter[str] = Counter()
    for line in read_quarantine(folder):
        counts[f"{line['reason']} ({'stored' if line['record_id'] is not None else 'no record'})"] += 1
    print(f"{folder}: {reasons_text(counts)}. Stored records can be restored; the others, exported and corrected")


def _show(lines: Iterator[dict[str, Any]]) -> None:
    found = list(lines)
    if not found:
        print("nothing in the quarantine matches")
    for line in found:
        number = "no record" if line["record_id"] is None else f"record {line['record_id']}"
        print(f"{line['material_id']}/{line['frame_id']} ({number}): {line['reason']}: {line['detail']}")


def _restore(folder: Path, lines: Iterator[dict[str, Any]], *, dry_run: bool) -> None:
    found = list(lines)
    stored = [line["record_id"] for line in found if line["record_id"] is not None]
    if not stored:
        raise NotThereError(
            f"none of the {len(found)} matching lines has a stored record to put back: correct the raw data"
            " (export writes it) and prepare it"
        )
    if dry_run:
        print(f"would put back {len(stored)} records; {len(found) - len(stored)} matching frames have none")
        return
    manifest = restore(folder, stored)
    print(f"{len(stored)} records put back; {folder} has {manifest['counts']['kept']:,} records in use now")


def _export(target: Path, lines: Iterator[dict[str, Any]]) -> None:
    """Write the raw texts as JSON lines, with the reason beside each, to be corrected."""
    written = 0
    with target.open("x", encoding="utf-8") as file:
        for line in lines:
            if line["raw"]:
                file.write(line["raw"].replace("\n", " ") + "\n")
                written += 1
    print(f"{written} raw records written to {target}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if it did what was asked, 2 if it could not."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.quarantine", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="folder that prepare_data wrote")
    parser.add_argument("action", choices=("list", "show", "restore", "export"))
    parser.add_argument("file", type=Path, nargs="?", help="export: file to write")
    parser.add_argument("--reason", type=Reason, choices=tuple(Reason))
    parser.add_argument("--id", help="material, or material/frame")
    parser.add_argument("--dry-run", action="store_true")
    configure_logging()
    arguments = parser.parse_args(argv)
    try:
        _act(arguments)
    except (ValueError, OSError) as error:
        if not is_for_the_user(error):
            raise
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 2
    return 0


def _act(arguments: argparse.Namespace) -> None:
    lines = lines_of(arguments.folder, arguments.reason, arguments.id)
    match arguments.action:
        case "list":
            _list(arguments.folder)
        case "show":
            _show(lines)
        case "restore":
            _restore(arguments.folder, lines, dry_run=arguments.dry_run)
        case "export":
            if arguments.file is None:
                raise ValueError("export needs the file to write: python -m data_prep.quarantine FOLDER export FILE")
            _export(arguments.file, lines)


if __name__ == "__main__":
    sys.exit(main())
