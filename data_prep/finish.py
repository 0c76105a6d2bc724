"""The second pass: stored records and their facts become a data set: splits, quarantine and, last, the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from data_prep.decide import Decision, decide
from data_prep.facts import FactsTable
from data_prep.manifest import Origin, make_manifest
from data_prep.output import write_json
from data_prep.quarantine_file import QuarantineCounts, write_quarantine
from data_prep.sources.base import Rejection
from data_prep.tally import tally
from rung.config.preparation import FilterConfig, SplitConfig
from rung.config.progress import waiting
from rung.data.dataset import MANIFEST_NAME, Manifest
from rung.data.index import Index, index_path, write_splits
from rung.data.shard import ShardInfo, file_sha256

_USUAL: Final = 25e-6  # seconds per record


def finish(
    folder: Path, shards: Sequence[ShardInfo], unreadable: Iterable[Rejection], origin: Origin
) -> tuple[dict[str, Any], QuarantineCounts]:
    """Decide about every stored record and describe the set; returns the manifest, which is written last.

    It depends on its arguments and on the files of the first pass alone, so it can be done again at any time.

    Args:
        folder: of the shards; there has to be at least one.
        shards: in order.
        unreadable: frames that gave no record.
        origin: of the set.

    Raises:
        ShardError: a file of a shard is missing or damaged.
        LabelsLieError: most records of a functional have energies of another one.
        WrongUnitError: most labels are in another unit.
    """
    with waiting("looking at all records together", _USUAL * sum(shard.num_records for shard in shards)):
        return _finish(folder, shards, unreadable, origin)


def decide_again(manifest: Manifest, index: Index, facts: FactsTable) -> Decision:
    """The decision that the files of a finished set have to agree with."""
    with waiting("deciding about all records again", _USUAL * len(index)):
        return _decision(manifest.config, index, facts, manifest.restored)


def _finish(
    folder: Path, shards: Sequence[ShardInfo], unreadable: Iterable[Rejection], origin: Origin
) -> tuple[dict[str, Any], QuarantineCounts]:
    names = [shard.name for shard in shards]
    index, facts = Index(folder, names), FactsTable.load(folder, names)
    decision = _decision(origin.config, index, facts, origin.restored)
    start = 0
    infos = []
    for shard in shards:
        path = index_path(folder, shard.name)
        write_splits(path, decision.split[start : start + shard.num_records])
        start += shard.num_records
        infos.append(replace(shard, index_sha256=file_sha256(path)))
    quarantine = write_quarantine(folder, unreadable, index, facts, decision)
    split = SplitConfig(**origin.config["split"])
    manifest = make_manifest(origin, infos, tally(index, facts, decision, quarantine.by_reason, split))
    write_json(folder / MANIFEST_NAME, manifest)
    return manifest, quarantine


def _decision(config: Mapping[str, Any], index: Index, facts: FactsTable, restored: Sequence[int]) -> Decision:
    return decide(index, facts, FilterConfig(**config["filters"]), SplitConfig(**config["split"]), restored)
