"""Binary packets: a fixed prefix, a msgpack header, tensors as coded bytes behind it, one checksum.

offset  size  field
0       4     magic "SBus"
4       1     wire version
5       1     kind
6       2     zero
8       4     header length, little endian
12      4     body length, little endian
16      4     CRC-32 of everything else
20      4     zero
24            header (msgpack map), then body
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgpack
import numpy as np
from numpy.typing import NDArray

from splitbus_schemas._kinds import KINDS_BY_NUMBER, KINDS_BY_TYPE
from splitbus_schemas._sealed import SEALED_KINDS, read_sealed, sealed_number
from splitbus_schemas.codecs import CODINGS, coding_for, decode_bytes, encode_bytes
from splitbus_schemas.differences import decode as decode_difference
from splitbus_schemas.differences import is_temporal
from splitbus_schemas.dtypes import DTYPES
from splitbus_schemas.entropy import Coder
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.limits import (
    MAX_HEADER_BYTES,
    MAX_HEADER_ITEMS,
    MAX_NAME_BYTES,
    MAX_PACKET_BYTES,
    MAX_RANK,
    MAX_TENSOR_BYTES,
    WIRE_VERSION,
)
from splitbus_schemas.packet_types import Packet, Sealed, Tensor
from splitbus_schemas.pictures import is_picture
from splitbus_schemas.reader import Reader
from splitbus_schemas.references import Held

MAGIC: Final = b"SBus"
_PREFIX: Final = struct.Struct("<4sBBHIIII")
PREFIX_BYTES: Final = _PREFIX.size
KNOWN_KINDS: Final = (*KINDS_BY_NUMBER, *SEALED_KINDS)

Array: TypeAlias = NDArray[Any]


def dtype_name(array: Array) -> str:
    """What `array.dtype.name` is, which numpy works out anew each time: that takes 2 us and more."""
    return _name_of(array.dtype)


@functools.lru_cache(64)
def _name_of(dtype: np.dtype[Any]) -> str:
    return dtype.name


def pack_tensor(name: str, array: Array, coding: str, *, final: bool = False, coder: Coder | None = None) -> Tensor:
    """`array` as a tensor of the wire; under a coding for pictures, what is none is coded as `coding_for` says.

    A tensor of coefficients comes with its `coder`; those that it cannot hold within its bound are sent as they are.
    Raises PayloadTooLargeError; ConfigError for a picture without Pillow; KeyError for a dtype or coding not ours.
    """
    dtype = dtype_name(array)
    asked, shift = coding, CODINGS[coding].shift
    coding = coding_for(asked, dtype, array.shape, final=final)
    little = DTYPES[dtype]
    for what, size, limit in (
        (f"tensor {name!r}", array.nbytes, MAX_TENSOR_BYTES),
        (f"list of dimensions of tensor {name!r}", array.ndim, MAX_RANK),
        ("name of a tensor", len(name.encode()), MAX_NAME_BYTES),
    ):
        if size > limit:
            raise PayloadTooLargeError(what, size, limit)
    if coder is not None and shift is not None and array.size:
        frame = coder.encode(array, shift)
        if frame is not None:
            return Tensor(name, dtype, array.shape, asked, frame, final)
    flat = np.ascontiguousarray(array, dtype=little).reshape(-1).view(np.uint8).data if array.size else b""
    return Tensor(name, dtype, array.shape, coding, encode_bytes(coding, flat, array.shape), final)


def unpack_tensor(tensor: Tensor, coder: Coder | None = None, held: Held | None = None) -> Array:
    """The array in `tensor`, read-only and sharing its bytes where they are raw. Raises DecodeError.

    Coefficients need the `coder` whose tables they were coded with, and differences what is `held` of their sender.
    """
    if tensor.coding in CODINGS and CODINGS[tensor.coding].shift is not None:
        return _coefficients(tensor, coder, held)
    dtype = DTYPES[tensor.dtype]
    size = math.prod(tensor.shape) * dtype.itemsize
    _check_picture(tensor)
    data = decode_bytes(tensor.coding, tensor.data, size, tensor.shape)
    if tensor.dtype == "bool" and np.frombuffer(data, dtype=np.uint8).max(initial=0) > 1:
        raise DecodeError(f"tensor {tensor.name!r} of bool holds a byte that is neither 0 nor 1")
    return np.frombuffer(data, dtype=dtype).reshape(tensor.shape)


def _coefficients(tensor: Tensor, coder: Coder | None, held: Held | None) -> Array:
    if coder is None or tensor.dtype != "float32":
        raise DecodeError(f"tensor {tensor.name!r} is coded as {tensor.coding}, but there are no tables for it")
    if held is not None and is_temporal(tensor.data):
        found = decode_difference(coder, tensor.data, tensor.shape, held).values(tensor.shape)
    else:
        found = coder.decode(tensor.data, tensor.shape)
    found.flags.writeable = False
    return found


def _check_picture(tensor: Tensor) -> None:
    coding = CODINGS.get(tensor.coding)
    if coding is not None and coding.picture and not is_picture(tensor.dtype, tensor.shape):
        raise DecodeError(
            f"tensor {tensor.name!r} is coded as {tensor.coding}, but {tensor.dtype}{list(tensor.shape)} is no picture"
        )


def encode(packet: Packet) -> bytes:
    """The bytes of `packet`. Raises PayloadTooLargeError."""
    if isinstance(packet, Sealed):
        return _framed("sealed", sealed_number(packet.clear), packet.header, [packet.body])
    kind = KINDS_BY_TYPE[type(packet)]
    header_map, body = kind.write(packet)
    return _framed(kind.name, kind.number, msgpack.packb(header_map), body)


def _framed(name: str, number: int, header: bytes, body: Sequence[bytes | memoryview]) -> bytes:
    if len(header) > MAX_HEADER_BYTES:
        raise PayloadTooLargeError(f"header of a {name} packet", len(header), MAX_HEADER_BYTES)
    body_bytes = sum(len(piece) for piece in body)
    total = PREFIX_BYTES + len(header) + body_bytes
    if total > MAX_PACKET_BYTES:
        raise PayloadTooLargeError(f"{name} packet", total, MAX_PACKET_BYTES)
    prefix = _PREFIX.pack(MAGIC, WIRE_VERSION, number, 0, len(header), body_bytes, 0, 0)
    crc = zlib.crc32(header, zlib.crc32(prefix))
    for piece in body:
        crc = zlib.crc32(piece, crc)
    prefix = _PREFIX.pack(MAGIC, WIRE_VERSION, number, 0, len(header), body_bytes, crc, 0)
    return b"".join((prefix, header, *body))


def decode(data: bytes | bytearray | memoryview) -> Packet:
    """The packet in `data`; its tensors share these bytes. Raises DecodeError, and nothing else."""
    view = memoryview(data).toreadonly()
    if len(view) < PREFIX_BYTES:
        raise DecodeError(f"packet has {len(view)} bytes, its prefix alone needs {PREFIX_BYTES}")
    if len(view) > MAX_PACKET_BYTES:
        raise DecodeError(f"packet has {len(view)} bytes, the limit is {MAX_PACKET_BYTES}")
    magic, version, number, zero, header_bytes, body_bytes, crc, zero2 = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise DecodeError(f"packet begins with {bytes(magic)!r}, not with {MAGIC!r}")
    if version != WIRE_VERSION:
        raise VersionError("packet", version, WIRE_VERSION)
    if zero or zero2:
        raise DecodeError("packet has a reserved field that is not zero")
    if header_bytes > MAX_HEADER_BYTES:
        raise DecodeError(f"header has {header_bytes} bytes, the limit is {MAX_HEADER_BYTES}")
    if PREFIX_BYTES + header_bytes + body_bytes != len(view):
        raise DecodeError(f"packet has {len(view)} bytes, its prefix says {PREFIX_BYTES + header_bytes + body_bytes}")
    zeroed = _PREFIX.pack(magic, version, number, 0, header_bytes, body_bytes, 0, 0)
    if zlib.crc32(view[PREFIX_BYTES:], zlib.crc32(zeroed)) != crc:
        raise DecodeError("packet does not match its checksum: it was damaged on the way")
    kind = KINDS_BY_NUMBER.get(number) or SEALED_KINDS.get(number)
    if kind is None:
        raise DecodeError(f"packet is of kind {number}, known are {', '.join(map(str, KNOWN_KINDS))}")
    raw = view[PREFIX_BYTES : PREFIX_BYTES + header_bytes]
    name = f"sealed {kind.name}" if number in SEALED_KINDS else kind.name
    reader, body = Reader(unpack_header(raw), name), view[PREFIX_BYTES + header_bytes :]
    return read_sealed(kind, bytes(raw), reader, body) if number in SEALED_KINDS else kind.read(reader, body)


def unpack_header(data: memoryview) -> dict[str, Any]:
    """The map that is a header, within its limits. Raises DecodeError."""
    try:
        header = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=MAX_HEADER_ITEMS,
            max_map_len=MAX_HEADER_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError(f"header is no msgpack: {str(error) or type(error).__name__}") from None
    if not isinstance(header, dict):
        raise DecodeError("header is no map")
    return header
