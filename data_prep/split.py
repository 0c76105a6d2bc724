"""The split by material: a hash of the material's name decides, so it is the same for every source and functional."""

from hashlib import blake2b
from typing import Final

from rung.config.preparation import SplitConfig
from rung.data.index import SPLITS

_SPAN: Final = float(1 << 64)


def material_hash(material_id: str, salt: str) -> float:
    """A number in [0, 1) that depends on the material and the salt alone."""
    digest = blake2b(f"{salt}\0{material_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _SPAN


def split_of(material_id: str, config: SplitConfig) -> int:
    """The part (position in `SPLITS`) that all frames of a material belong to.

    Nothing else enters: more records, another order, another functional move no material. Test grows from 0 upwards and
    validation from 1 downwards, so that a larger share keeps the materials of a smaller one.
    """
    position = material_hash(material_id, config.salt)
    if position < config.test:
        return SPLITS.index("test")
    if position >= 1 - config.validation:
        return SPLITS.index("validation")
    return SPLITS.index("train")
