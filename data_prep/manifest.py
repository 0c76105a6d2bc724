"""manifest.json: what a prepared data set is and how it was made. It is written last: where it is, the set is whole."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from data_prep.output import OutputError
from data_prep.tally import Tally
from rung.config.tree import PrepareConfig
from rung.data.codec import FORMAT_VERSION
from rung.data.dataset import MANIFEST_NAME, Manifest
from rung.data.shard import ShardInfo, file_sha256

_ABSENT: Final = "(not there)"


def make_manifest(
    config: PrepareConfig, dataset: str, facts: Mapping[str, Any], tally: Tally, shards: list[ShardInfo]
) -> dict[str, Any]:
    """Assemble the manifest. It depends on the input and the config alone, so equal inputs give equal manifests.

    Args:
        config: of the preparation.
        dataset: name kept with every record.
        facts: what the source knows of its input (its hash, for instance).
        tally: counts over the records.
        shards: the finished shards, in order.
    """
    return {
        "format_version": FORMAT_VERSION,
        "kind": Manifest.model_fields["kind"].default,
        "graph": config.graph.model_dump(),
        "shards": [asdict(shard) for shard in shards],
        "source": {**config.source.model_dump(), "dataset": dataset, **facts},
        **tally.to_manifest(config.split),
        "config": content_config(config),
    }


def content_config(config: PrepareConfig) -> dict[str, Any]:
    """The part of the config that the content depends on: all but the place of the output."""
    return config.model_dump(mode="json", exclude={"output"})


def check_same_content(manifest: Manifest, config: PrepareConfig, output: Path) -> None:
    """Check that a prepared set is the one that a config asks for.

    Raises:
        OutputError: a setting differs, or the raw file has changed since.
    """
    differences = list(_differences("", (manifest.model_extra or {}).get("config", {}), content_config(config)))
    if differences:
        raise OutputError(
            f"{output} holds a data set made with other settings: {'; '.join(differences)}."
            " Set output to another folder, or remove that one"
        )
    if config.source.path is not None:
        _check_same_input(manifest.source, Path(config.source.path).expanduser(), output)


def _check_same_input(recorded: Mapping[str, Any], raw: Path, output: Path) -> None:
    """A prepared set outlives its raw file; where that is still there, it has to be the same."""
    if not raw.is_file():
        return
    changed = raw.stat().st_size != recorded["num_bytes"]
    if not changed and raw.stat().st_mtime > (output / MANIFEST_NAME).stat().st_mtime:
        changed = file_sha256(raw) != recorded["sha256"]
    if changed:
        raise OutputError(
            f"{raw} has changed since {output} was made from it: set output to another folder, or remove that one"
        )


def _differences(key: str, there: Any, asked: Any) -> Iterator[str]:
    """The dotted keys whose values differ, with both values."""
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        for name in sorted(there.keys() | asked.keys()):
            yield from _differences(f"{key}.{name}".lstrip("."), there.get(name, _ABSENT), asked.get(name, _ABSENT))
    elif there != asked:
        yield f"{key} is {there!r} there, {asked!r} asked"
