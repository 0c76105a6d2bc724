"""The split by material: a hash of the material's name decides, so it is the same for every source and functional."""

from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rung.config.preparation import SplitConfig
from rung.data.index import SPLITS, Index

_SPAN: Final = float(1 << 64)
_ROWS_AT_ONCE: Final = 65_536


def group_hash(group: bytes, salt: str) -> float:
    """A number in [0, 1) that depends on the name of the group and the salt alone."""
    digest = blake2b(salt.encode() + b"\0" + group, digest_size=8).digest()
    return int.from_bytes(digest, "big") / _SPAN


def split_of(group: bytes, config: SplitConfig) -> int:
    """The part (position in `SPLITS`) that all frames of a group fall into.

    Nothing else enters: more records, another order, another functional move nothing. Test grows from 0 upwards and
    validation from 1 downwards, so that a larger share keeps the materials of a smaller one.
    """
    position = group_hash(group, config.salt)
    if position < config.test:
        return SPLITS.index("test")
    if position >= 1 - config.validation:
        return SPLITS.index("validation")
    return SPLITS.index("train")


def split_of_records(index: Index, config: SplitConfig) -> NDArray[np.uint8]:
    """The part of each record: (n,), position in `SPLITS`."""
    groups, rows = np.unique(groups_of(index, config), return_inverse=True)
    return np.array([split_of(group, config) for group in groups.tolist()], dtype=np.uint8)[rows]


def groups_of(index: Index, config: SplitConfig) -> NDArray[np.bytes_]:
    """What may not be torn apart: the name of each record's material, reduced composition or elements: (n,)."""
    if config.by == "material":
        return index.material_id
    parts = []
    for start in range(0, len(index), _ROWS_AT_ONCE):
        counts = index.compositions(np.arange(start, min(start + _ROWS_AT_ONCE, len(index))))
        if config.by == "composition":
            counts = counts // np.gcd.reduce(counts, axis=1, keepdims=True)
        else:
            counts = (counts > 0).astype(counts.dtype)
        different, rows = np.unique(counts, axis=0, return_inverse=True)
        names = [_name(row) for row in different]
        parts.append(np.array(names, dtype=np.bytes_)[rows.reshape(-1)])
    return np.concatenate(parts)


def _name(counts: NDArray[np.integer]) -> bytes:
    """Atomic numbers and their counts as text, which does not depend on an order of elements."""
    return ",".join(f"{z + 1}:{counts[z]}" for z in np.flatnonzero(counts).tolist()).encode()
