"""From the config of a source to the source."""

from pathlib import Path

from data_prep.sources.base import Source
from data_prep.sources.matpes import open_matpes
from data_prep.sources.mptrj import open_mptrj
from rung.config.preparation import SourceConfig

_ENDINGS = (".gz", ".json", ".jsonl")


def open_source(config: SourceConfig) -> Source:
    """Open the data set that the config names.

    Raises:
        BrokenFileError: its file cannot be opened.
    """
    if config.kind == "surrogate":
        # Torch and chgnet take seconds to import, and no other source needs them.
        from data_prep.sources.surrogate import open_surrogate  # noqa: PLC0415

        return open_surrogate(config)
    if config.path is None:
        raise ValueError(f"source.kind {config.kind!r} reads a file: set source.path")
    path = Path(config.path).expanduser()
    name = config.dataset or _without_endings(path.name)
    if config.kind == "mptrj":
        return open_mptrj(path, name, config.functional, config.energy)
    return open_matpes(path, name, config.functional)


def _without_endings(name: str) -> str:
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name or "records"
