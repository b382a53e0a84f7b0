"""How others send a tensor or a picture, as faithfully as their papers say: JALAD, DynO, JPEG, WebP."""

from __future__ import annotations

import heapq
import io
from typing import Final

import bitshuffle
import numpy as np
from PIL import Image

from splitbus_runtime.engine import Array

BITS: Final = (2, 3, 4, 5, 6, 8)
RANGE_BYTES: Final = 8
"""The least and the largest value of a tensor, as float32."""

QUALITIES: Final = {"jpeg": (30, 50, 65, 75, 85, 90, 95, 98), "webp": (10, 30, 50, 75, 90, 95, 100), "png": (0,)}
"""PNG knows none: it is the picture itself, for those models of which JPEG and WebP lose too much."""


def quantise(values: Array, bits: int) -> tuple[Array, Array]:
    """Codes of n bits (uint8) between the tensor's own least and largest value, and what they stand for."""
    low, high = float(values.min()), float(values.max())
    step = (high - low) / (2**bits - 1) or 1.0
    codes = np.rint((values - low) / step).astype(np.uint8)
    values_of = codes * np.float32(step) + np.float32(low)
    return codes, (values_of if values.dtype.kind == "f" else np.rint(values_of)).astype(values.dtype)


def jalad_bytes(codes: Array, bits: int) -> int:
    """After Li et al. 2018: Huffman code of the codes, its table of code lengths (5 bits a symbol) and the range."""
    counts = np.bincount(codes.ravel(), minlength=2**bits)
    used = [int(count) for count in counts if count]
    payload = codes.size if len(used) == 1 else _huffman_bits(used)
    return RANGE_BYTES + int(payload + 5 * 2**bits + 7) // 8


def _huffman_bits(counts: list[int]) -> int:
    """The length of the whole text: the sum of all inner nodes of the tree."""
    heapq.heapify(counts)
    total = 0
    while len(counts) > 1:
        joined = heapq.heappop(counts) + heapq.heappop(counts)
        total += joined
        heapq.heappush(counts, joined)
    return total


def dyno_bytes(codes: Array) -> int:
    """After Almeida et al. 2022: bit shuffle and LZ4 of the codes, by the library of that name, and the range.

    It shuffles within blocks of 4 kB; the whole tensor in one block is tried as well, and the better one counts.
    """
    flat = np.ascontiguousarray(codes).ravel()
    whole = -(-flat.size // 8) * 8
    sizes = [int(bitshuffle.compress_lz4(flat, block).nbytes) for block in (0, whole)]
    return RANGE_BYTES + min(sizes)


def save_picture(pixels: Array, kind: str, quality: int) -> bytes:
    """A picture (uint8 RGB) as JPEG, WebP or PNG, which knows no quality."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind, quality=quality)
    return target.getvalue()


def open_picture(data: bytes) -> Array:
    """A picture's pixels (uint8 RGB)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def recode(pixels: Array, kind: str, quality: int) -> tuple[int, Array]:
    """A picture's bytes as JPEG, WebP or PNG, and what a decoder makes of them (uint8 RGB)."""
    data = save_picture(pixels, kind, quality)
    return len(data), open_picture(data)
