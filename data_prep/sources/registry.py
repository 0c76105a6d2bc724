"""From the config of a source to the source."""

import re
from importlib import import_module
from typing import Final

from data_prep.sources.base import Source
from data_prep.sources.inputs import file_name
from rung.config.preparation import SourceConfig, SourceKind

_OPENERS: Final[dict[SourceKind, str]] = {
    "mptrj": "data_prep.sources.mptrj:open_mptrj",
    "matpes": "data_prep.sources.matpes:open_matpes",
    "mp_api": "data_prep.sources.mp_api.documents:open_documents",
    "vasp": "data_prep.sources.vasp.tree:open_vasp",
    "ase": "data_prep.sources.ase_files.source:open_ase",
    "atoms": "data_prep.sources.atoms:open_atoms",
    "surrogate": "data_prep.sources.surrogate:open_surrogate",
}
"""Who opens each kind. Imported by name where it is used: torch, chgnet and ASE take seconds."""

_LIVE: Final = "data_prep.sources.mp_api.live:open_live"
_ENDINGS: Final = re.compile(r"\.(gz|bz2|json|jsonl|ndjson|extxyz|xyz|db|traj|csv)$", re.IGNORECASE)


def open_source(config: SourceConfig) -> Source:
    """Open the data set that the config names.

    Raises:
        BrokenFileError: its files cannot be opened, or the Materials Project does not answer.
        ValueError: the functional that it states is not known, or the surrogate cannot build with its elements.
    """
    asks = config.kind == "mp_api" and not config.paths
    module, _, function = (_LIVE if asks else _OPENERS[config.kind]).partition(":")
    return getattr(import_module(module), function)(config, config.dataset or _default_name(config))


def _default_name(config: SourceConfig) -> str:
    """The name of the first file or folder, without what only tells its format."""
    if not config.paths:
        return "surrogate" if config.kind == "surrogate" else "materials-project"
    name = re.sub(r"[*?\[\]]", "", file_name(config.paths[0]))
    while (shorter := _ENDINGS.sub("", name)) != name:
        name = shorter
    return name or "records"
