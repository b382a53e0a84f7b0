"""Coded tensors as a file: what a packet's tensors are, and what they were before a codec's nodes, without a route.

A file, little-endian:

| offset | bytes | what |
| --- | --- | --- |
| 0 | 4 | "SBtf" |
| 4 | 1 | version, 1 |
| 5 | 3 | zero |
| 8 | 4 | length of the header |
| 12 | 4 | length of the body |
| 16 | 4 | CRC-32 of everything else |
| 20 | | header (msgpack map), then body |
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import msgpack

from splitbus_schemas._kinds import read_tensors, write_tensors
from splitbus_schemas.codecs import SINGLE
from splitbus_schemas.dtypes import DTYPES
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.limits import MAX_HEADER_BYTES, MAX_PACKET_BYTES, MAX_RANK, MAX_TENSORS
from splitbus_schemas.packet import unpack_header
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.reader import Reader

FILE_VERSION: Final = 1
_MAGIC: Final = b"SBtf"
_PREFIX: Final = struct.Struct("<4sB3sIII")
_ZERO: Final = b"\0\0\0"


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor as it was before the codec."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of a cut under a codec: `tensors` as coded, `sources` as they were."""

    codec: str
    sources: tuple[Source, ...]
    tensors: tuple[Tensor, ...]


def write_file(file: TensorFile) -> bytes:
    """The bytes of a file. Raises PayloadTooLargeError."""
    if len(file.sources) > MAX_TENSORS:
        raise PayloadTooLargeError("list of sources in a file of tensors", len(file.sources), MAX_TENSORS)
    header: bytes = msgpack.packb(
        {
            "codec": file.codec,
            "sources": [[source.name, source.dtype, list(source.shape)] for source in file.sources],
            "tensors": write_tensors(file.tensors),
        }
    )
    if len(header) > MAX_HEADER_BYTES:
        raise PayloadTooLargeError("header of a file of tensors", len(header), MAX_HEADER_BYTES)
    body = b"".join(tensor.data for tensor in file.tensors)
    if _PREFIX.size + len(header) + len(body) > MAX_PACKET_BYTES:
        raise PayloadTooLargeError("file of tensors", _PREFIX.size + len(header) + len(body), MAX_PACKET_BYTES)
    return _seal(header, body)


def read_file(data: bytes | memoryview) -> TensorFile:
    """The file in `data`; its tensors share these bytes. Raises DecodeError, and nothing else."""
    view = memoryview(data).toreadonly()
    if not _PREFIX.size <= len(view) <= MAX_PACKET_BYTES:
        raise DecodeError(f"file of tensors has {len(view)} bytes, allowed are {_PREFIX.size} to {MAX_PACKET_BYTES}")
    magic, version, zero, header_bytes, body_bytes, crc = _PREFIX.unpack_from(view)
    if magic != _MAGIC:
        raise DecodeError(f"file of tensors begins with {bytes(magic)!r}, not with {_MAGIC!r}")
    if version != FILE_VERSION:
        raise VersionError("file of tensors", version, FILE_VERSION)
    if zero != _ZERO or header_bytes > MAX_HEADER_BYTES or _PREFIX.size + header_bytes + body_bytes != len(view):
        raise DecodeError(f"file of tensors has {len(view)} bytes, which is not what its prefix says")
    header, body = view[_PREFIX.size : _PREFIX.size + header_bytes], view[_PREFIX.size + header_bytes :]
    if _checksum(header, body) != crc:
        raise DecodeError("file of tensors does not match its checksum: it was damaged")
    reader = Reader(unpack_header(header), "file of tensors")
    codec = reader.word("codec")
    if codec not in SINGLE:
        raise DecodeError(f"file of tensors has codec {codec!r}, known are {', '.join(SINGLE)}")
    sources = tuple(_source(row) for row in reader.rows("sources", columns=3, limit=MAX_TENSORS))
    tensors = read_tensors(reader, body)
    for names in ([source.name for source in sources], [tensor.name for tensor in tensors]):
        if len(set(names)) < len(names) or "" in names:
            raise DecodeError(f"file of tensors names {', '.join(names)}: names must be there and differ")
    return TensorFile(codec, sources, tensors)


def _source(row: Reader) -> Source:
    dtype = row.word(1)
    if dtype not in DTYPES:
        raise DecodeError(f"source {row.name(0)!r} has dtype {dtype!r}, known are {', '.join(DTYPES)}")
    return Source(row.name(0), dtype, row.sizes(2, limit=MAX_RANK))


def _seal(header: bytes, body: bytes) -> bytes:
    prefix = _PREFIX.pack(_MAGIC, FILE_VERSION, _ZERO, len(header), len(body), _checksum(header, body))
    return b"".join((prefix, header, body))


def _checksum(header: bytes | memoryview, body: bytes | memoryview) -> int:
    prefix = _PREFIX.pack(_MAGIC, FILE_VERSION, _ZERO, len(header), len(body), 0)
    return zlib.crc32(body, zlib.crc32(header, zlib.crc32(prefix)))
