"""The statistics that a transform codec's coefficients are coded with: a blob that both ends hold, known by its hash.

Coefficients are coded with one probability table for each class of magnitude. `levels` says how large each coefficient
usually is, in quarter octaves; a frame's `shift` is its step in the same unit, so that a coefficient of level l belongs
to table l - shift - first. Below table 0 it is not sent (it would be zero almost always), above the last one it takes
the last. Hence one blob serves every setting.

The blob, little-endian:

| offset | bytes | what |
| --- | --- | --- |
| 0 | 4 | "SBtb" |
| 4 | 1 | version, 1 |
| 5 | 1 | rank R of a sample's coefficients, 1 to 7 |
| 6 | 1 | number of tables T, 1 to 64 |
| 7 | 1 | first: the level less the shift that table 0 stands for, signed |
| 8 | 4 R | dimensions of a sample's coefficients |
| | T | for each table its limit L, 1 to 255: its largest magnitude, which stands for larger ones too |
| | 4 | length Z of the levels |
| | Z | the levels, one signed byte a coefficient in C order, compressed by zstd |
| | 2 (L + 1) a table | frequencies f of the magnitudes 0 to L, f[0] + 2 (f[1] + ... + f[L]) = 65536: signs are alike |
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.errors import DecodeError, VersionError
from splitbus_schemas.limits import MAX_RANK, MAX_TENSOR_BYTES
from splitbus_schemas.zstd import compress, decompress

TABLES_VERSION: Final = 1
LEVELS_PER_OCTAVE: Final = 4
MAX_TABLES: Final = 64
"""Sixteen octaves between a coefficient that is never sent and one of the largest magnitude."""
MAX_LIMIT: Final = 255
TOTAL: Final = 2**16
"""What a table's frequencies add up to: exact in float32, and fine enough that rare symbols stay cheap."""
ID_BYTES: Final = 8

_MAGIC: Final = b"SBtb"
_PREFIX: Final = struct.Struct("<4sBBBb")
_LENGTH: Final = struct.Struct("<I")
_MAX_COEFFICIENTS: Final = MAX_TENSOR_BYTES // 4  # as float32


@dataclass(frozen=True, eq=False)
class Tables:
    """Levels (int8, a sample's coefficients) and, for each table, the frequencies of the magnitudes 0 to its limit."""

    levels: NDArray[np.int8]
    first: int
    frequencies: tuple[NDArray[np.uint16], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample's coefficients, without the batch."""
        return self.levels.shape

    @cached_property
    def blob(self) -> bytes:
        """The bytes that travel."""
        levels = compress(np.ascontiguousarray(self.levels).tobytes())
        return b"".join(
            (
                _PREFIX.pack(_MAGIC, TABLES_VERSION, len(self.shape), len(self.frequencies), self.first),
                struct.pack(f"<{len(self.shape)}I", *self.shape),
                bytes(len(table) - 1 for table in self.frequencies),
                _LENGTH.pack(len(levels)),
                levels,
                *(table.astype("<u2").tobytes() for table in self.frequencies),
            )
        )

    @cached_property
    def id(self) -> bytes:
        """The first bytes of the blob's SHA-256, which each frame repeats."""
        return hashlib.sha256(self.blob).digest()[:ID_BYTES]


def make_tables(levels: NDArray[np.int8], first: int, frequencies: Sequence[NDArray[Any]]) -> Tables:
    """Checked tables. Raises ValueError for what the format cannot hold: a program's mistake."""
    tables = tuple(np.asarray(table, np.uint16) for table in frequencies)
    problem = _objection(levels.shape, tables)
    if problem:
        raise ValueError(problem)
    return Tables(levels.astype(np.int8), first, tables)


def read_tables(blob: bytes | memoryview) -> Tables:
    """Tables from their bytes. Raises DecodeError; allocates little more than the coefficients' shape announces."""
    view = memoryview(blob)
    prefix = _take(view, 0, _PREFIX.size)
    magic, version, rank, count, first = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise DecodeError(f"coefficient tables begin with {magic!r}, not with {_MAGIC!r}")
    if version != TABLES_VERSION:
        raise VersionError("blob of coefficient tables", version, TABLES_VERSION)
    at = _PREFIX.size
    shape = struct.unpack(f"<{rank}I", _take(view, at, 4 * rank))
    at += 4 * rank
    limits = bytes(_take(view, at, count))
    at += count
    (length,) = _LENGTH.unpack(_take(view, at, _LENGTH.size))
    at += _LENGTH.size
    if not shape or not 0 < prod(shape) <= _MAX_COEFFICIENTS:
        raise DecodeError(f"coefficient tables are for {list(shape)}, allowed are 1 to {_MAX_COEFFICIENTS} values")
    levels = np.frombuffer(decompress(_take(view, at, length), prod(shape)), np.int8).reshape(shape)
    at += length
    tables = []
    for limit in limits:
        tables.append(np.frombuffer(_take(view, at, 2 * limit + 2), "<u2").astype(np.uint16))
        at += 2 * limit + 2
    if at != len(view):
        raise DecodeError(f"coefficient tables have {len(view)} bytes, their header says {at}")
    problem = _objection(shape, tables)
    if problem:
        raise DecodeError(problem)
    return Tables(levels, first, tuple(tables))


def _take(view: memoryview, start: int, size: int) -> memoryview:
    if start + size > len(view):
        raise DecodeError(f"coefficient tables end after {len(view)} bytes, at least {start + size} are announced")
    return view[start : start + size]


def _objection(shape: Sequence[int], tables: Sequence[NDArray[np.uint16]]) -> str:
    if not 0 < len(shape) < MAX_RANK or not 0 < prod(shape) <= _MAX_COEFFICIENTS:
        return f"coefficients of shape {list(shape)} are beyond what tables are made for"
    if not 0 < len(tables) <= MAX_TABLES:
        return f"there are {len(tables)} coefficient tables, allowed are 1 to {MAX_TABLES}"
    for number, table in enumerate(tables):
        if not 1 < len(table) <= MAX_LIMIT + 1 or not table.all():
            return f"coefficient table {number} has {len(table)} entries or a zero: allowed are 2 to {MAX_LIMIT + 1}"
        total = int(table[0]) + 2 * int(table[1:].sum(dtype=np.int64))
        if total != TOTAL:
            return f"frequencies of coefficient table {number} add up to {total}, not to {TOTAL}"
    return ""
