"""A record as bytes: a header, then the raw little-endian arrays of `rung.data.fields.FIELDS` in that order.

Absent labels are left out. Nothing is pickled, and equal records have equal bytes.
"""

import struct
import zlib
from typing import Any, Final

import numpy as np

from rung.data.fields import FIELDS
from rung.data.record import GraphRecord

FORMAT_VERSION: Final = 1
"""Version of records, shards and manifests; a reader refuses newer ones."""

_HEADER: Final = struct.Struct("<HHIIIII")  # version, labels, atoms, bonds, short bonds, angles, CRC-32 of the arrays


class ShardError(ValueError):
    """A data set, a shard or a record that cannot be read."""


def encode(record: GraphRecord) -> bytes:
    """Turn a record into the bytes that `decode` reads."""
    values = ((field, getattr(record, field.name)) for field in FIELDS)
    body = b"".join(np.asarray(value, field.dtype).tobytes() for field, value in values if value is not None)
    sizes = (record.num_atoms, record.num_bonds, record.num_short_bonds, record.num_angles)
    return _HEADER.pack(FORMAT_VERSION, record.labels, *sizes, zlib.crc32(body)) + body


def decode(payload: bytes, record_id: int = -1) -> GraphRecord:
    """Read a record; its arrays are read-only views of `payload`.

    Raises:
        ShardError: for another format version, missing bytes or a wrong checksum.
    """
    if len(payload) < _HEADER.size:
        raise ShardError(f"{len(payload)} bytes are no record: its header alone has {_HEADER.size}")
    version, flags, num_atoms, num_bonds, num_short_bonds, num_angles, checksum = _HEADER.unpack_from(payload)
    if version != FORMAT_VERSION:
        raise ShardError(f"the record has format {version}; this version of Rung reads format {FORMAT_VERSION}")
    if zlib.crc32(memoryview(payload)[_HEADER.size :]) != checksum:
        raise ShardError(f"the checksum does not match the {len(payload)} bytes of the record: the file is damaged")
    values: dict[str, Any] = {}
    offset = _HEADER.size
    for field in FIELDS:
        if field.label is not None and not flags & field.label:
            values[field.name] = None
            continue
        shape = field.full_shape(num_atoms, num_bonds)
        array = np.ndarray(shape, field.dtype, payload, offset)
        offset += array.nbytes
        values[field.name] = array if shape else float(array)
    return GraphRecord(num_short_bonds=num_short_bonds, num_angles=num_angles, record_id=record_id, **values)
