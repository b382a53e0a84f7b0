"""Codecs at a cut. Each is two halves: nodes inside the slices (gateway), and a coding of the bytes (here)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import zstandard

from splitbus_schemas.errors import DecodeError

ZSTD_LEVEL: Final = 1
"""Level 3 saves under 2 % on quantised activations and takes twice as long."""


@dataclass(frozen=True)
class Codec:
    """A named way to carry the tensors of a cut."""

    name: str
    nodes: str
    """Which ONNX nodes the slices hold around the cut: "" for none, else f16, q8 or q4."""
    coding: str
    """How the bytes of the wire tensors are coded: raw or zstd."""
    lossless: bool


CODECS: Final = {
    codec.name: codec
    for codec in (
        Codec("raw", nodes="", coding="raw", lossless=True),
        Codec("zstd", nodes="", coding="zstd", lossless=True),
        Codec("f16", nodes="f16", coding="zstd", lossless=False),
        Codec("q8", nodes="q8", coding="zstd", lossless=False),
        Codec("q4", nodes="q4", coding="zstd", lossless=False),
    )
}


# A fresh zstd context costs 8 us, as much as 16 kB take to compress, but one must not be used by two threads at once:
# whoever needs one takes it off the list, which is atomic, and puts it back. After an error it is not put back.
_compressors: list[zstandard.ZstdCompressor] = []
_decompressors: list[zstandard.ZstdDecompressor] = []

T = TypeVar("T")


def _take(pool: list[T], make: Callable[[], T]) -> T:
    try:
        return pool.pop()
    except IndexError:
        return make()


def _new_compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True, write_checksum=False)


def _zstd(data: bytes | memoryview) -> bytes:
    context = _take(_compressors, _new_compressor)
    coded = context.compress(data)
    _compressors.append(context)
    return coded


def _unzstd(data: bytes | memoryview, size: int) -> bytes:
    context = _take(_decompressors, zstandard.ZstdDecompressor)
    try:
        announced = zstandard.frame_content_size(data)
        if announced != size:
            raise DecodeError(f"zstd tensor announces {announced} bytes, its shape needs {size}")
        decoded = context.decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DecodeError(f"zstd tensor cannot be decompressed: {error}") from None
    _decompressors.append(context)
    return decoded


def _raw(data: bytes | memoryview) -> bytes | memoryview:
    return data


def _unraw(data: bytes | memoryview, size: int) -> bytes | memoryview:
    if len(data) != size:
        raise DecodeError(f"raw tensor has {len(data)} bytes, its shape needs {size}")
    return data


Encode = Callable[[bytes | memoryview], bytes | memoryview]
Decode = Callable[[bytes | memoryview, int], bytes | memoryview]

CODINGS: Final[dict[str, tuple[Encode, Decode]]] = {"raw": (_raw, _unraw), "zstd": (_zstd, _unzstd)}


def encode_bytes(coding: str, data: bytes | memoryview) -> bytes | memoryview:
    """`data` in the named coding; KeyError for a coding that is not ours, a program's mistake."""
    return CODINGS[coding][0](data)


def decode_bytes(coding: str, data: bytes | memoryview, size: int) -> bytes | memoryview:
    """Exactly `size` bytes from `data`. Raises DecodeError; allocates at most `size`."""
    if coding not in CODINGS:
        raise DecodeError(f"coding {coding!r} is not known: known are {', '.join(sorted(CODINGS))}")
    return CODINGS[coding][1](data, size)
