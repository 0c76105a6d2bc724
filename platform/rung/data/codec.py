"""A record as bytes: a header, then the little-endian arrays of `rung.data.fields.FIELDS` in that order, deflated.

Absent labels are left out. Nothing is pickled, and equal records have equal bytes. Bonds are most of a record and are
stored column by column: their small integers then deflate to a third.
"""

import struct
import zlib
from typing import Any, Final, Literal

import numpy as np

from rung.data.fields import FIELDS, Field, Level
from rung.data.record import GraphRecord

FORMAT_VERSION: Final = 2
"""Version of records, shards and manifests; a reader refuses all others. 2: facts of each record, records set aside."""

_HEADER: Final = struct.Struct("<HHIIII")  # version, labels, atoms, bonds, short bonds, angles
_CHECKSUM: Final = struct.Struct("<I")  # CRC-32 of the header and of the deflated arrays
_PREFIX: Final = _HEADER.size + _CHECKSUM.size
_DEFLATE_LEVEL: Final = 1  # higher ones take several times as long for a tenth fewer bytes


def _order(field: Field) -> Literal["C", "F"]:
    """Order of a field's array: bonds by column, the rest by row."""
    return "F" if field.level is Level.BOND else "C"


# Each field with the flag of its label as a plain integer, 0 for fields of every record.
_LAYOUT: Final[tuple[tuple[Field, int, Literal["C", "F"]], ...]] = tuple(
    (field, int(field.label or 0), _order(field)) for field in FIELDS
)


class ShardError(ValueError):
    """A data set, a shard or a record that cannot be read."""


class DamagedShardError(ShardError):
    """A shard that was whole when it was prepared and cannot be read now; its name is the second argument."""

    def __init__(self, message: str, shard: str) -> None:
        super().__init__(message, shard)  # both, so that it comes through a pipe whole
        self.shard = shard

    def __str__(self) -> str:
        return str(self.args[0])


def encode(record: GraphRecord) -> bytes:
    """Turn a record into the bytes that `decode` reads."""
    labels = int(record.labels)
    arrays = b"".join(
        np.asarray(getattr(record, field.name), field.dtype).tobytes(order)
        for field, flag, order in _LAYOUT
        if flag & labels == flag
    )
    body = zlib.compress(arrays, _DEFLATE_LEVEL)
    sizes = (record.num_atoms, record.num_bonds, record.num_short_bonds, record.num_angles)
    header = _HEADER.pack(FORMAT_VERSION, labels, *sizes)
    return header + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(header))) + body


def decode(payload: bytes, record_id: int = -1) -> GraphRecord:
    """Read a record; its arrays are read-only.

    Raises:
        ShardError: for another format version, missing bytes or a wrong checksum.
    """
    if len(payload) < _PREFIX:
        raise ShardError(f"{len(payload)} bytes are no record: what precedes its arrays alone has {_PREFIX}")
    version, labels, num_atoms, num_bonds, num_short_bonds, num_angles = _HEADER.unpack_from(payload)
    if version != FORMAT_VERSION:
        raise ShardError(f"the record has format {version}; this version of Rung reads format {FORMAT_VERSION}")
    view = memoryview(payload)
    checksum = zlib.crc32(view[_PREFIX:], zlib.crc32(view[: _HEADER.size]))
    if (checksum,) != _CHECKSUM.unpack_from(payload, _HEADER.size):
        raise ShardError(f"the checksum does not match the {len(payload)} bytes of the record: the file is damaged")
    arrays = zlib.decompress(view[_PREFIX:])
    values: dict[str, Any] = {}
    offset = 0
    for field, flag, order in _LAYOUT:
        if flag & labels != flag:
            values[field.name] = None
            continue
        shape = field.full_shape(num_atoms, num_bonds)
        array = np.ndarray(shape, field.dtype, arrays, offset, order=order)
        offset += array.nbytes
        values[field.name] = array if shape else float(array)
    return GraphRecord(num_short_bonds=num_short_bonds, num_angles=num_angles, record_id=record_id, **values)
