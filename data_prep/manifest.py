"""manifest.json: what a prepared data set is and how it was made. It is written last: where it is, the set is whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from data_prep.output import OutputError
from rung.config.tree import PrepareConfig
from rung.data.codec import FORMAT_VERSION
from rung.data.dataset import MANIFEST_NAME, Manifest
from rung.data.shard import ShardInfo, file_sha256

_ABSENT: Final = "(not there)"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a data set comes from, as its manifest tells.

    Attributes:
        config: the settings that the content depends on.
        source: the source's settings, name and facts.
        restored: ids of records that someone has put back from the quarantine.
    """

    config: Mapping[str, Any]
    source: Mapping[str, Any]
    restored: Sequence[int] = ()


def make_manifest(origin: Origin, shards: Sequence[ShardInfo], counted: Mapping[str, Any]) -> dict[str, Any]:
    """Assemble the manifest. It depends on the input and the config alone, so equal inputs give equal manifests.

    Args:
        origin: of the set.
        shards: in order.
        counted: sections made by `data_prep.tally.tally`.
    """
    return {
        "format_version": FORMAT_VERSION,
        "kind": Manifest.model_fields["kind"].default,
        "graph": origin.config["graph"],
        "shards": [asdict(shard) for shard in shards],
        "source": dict(origin.source),
        **counted,
        "restored": list(origin.restored),
        "config": dict(origin.config),
    }


def content_config(config: PrepareConfig) -> dict[str, Any]:
    """The part of the config that the content depends on: not the place of the output, nor who does the work."""
    return config.model_dump(mode="json", exclude={"output", "parallel"})


def check_same_content(manifest: Manifest, config: PrepareConfig, output: Path) -> None:
    """Check that a prepared set is the one that a config asks for.

    Raises:
        OutputError: a setting differs, or the raw file has changed since.
    """
    differences = list(_differences("", manifest.config, content_config(config)))
    if differences:
        raise OutputError(
            f"{output} holds a data set made with other settings: {'; '.join(differences)}."
            " Set output to another folder, or remove that one"
        )
    if isinstance(config.source.path, str):
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
    elif there != asked and not (there == _ABSENT and asked is None):  # None: a later version's setting, not used
        yield f"{key} is {there!r} there, {asked!r} asked"
