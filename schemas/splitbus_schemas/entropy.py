"""Coefficients as bytes and back: the coded form of a transform codec's tensor.

A slice gives coefficients as float32 of shape (batch, *shape of the tables), and takes them so. In between they are
multiples of a step, which a strength's `shift` names: 2^(shift/4).

A frame, little-endian:

| offset | bytes | what |
| --- | --- | --- |
| 0 | 1 | 0x54 |
| 1 | 1 | version, 1 |
| 2 | 1 | method: 0 all zero, nothing follows; 1 zstd, the fast one; 2 range coder, the small one; plus 128: all sent |
| 3 | 1 | shift, signed: the step, and which tables are used (see entropy_tables) |
| 4 | 8 | id of the tables: the first bytes of their blob's SHA-256 |
| 12 | 4 | number of escapes E |
| 16 | 2 E | escapes, in order: by how much a magnitude exceeds its limit |
| | | the symbols by method |

The symbols stand in the order of their tables, in C order within a table, all samples of a coefficient together.
Coefficients below table 0 are not there, and decode to zero; where all are sent, they belong to table 0. A symbol is
the coefficient over the step, rounded by its sender to one of the two integers beside it (see rounding), and cut off at
plus or minus its limit: the table's under method 2, 127 under method 1. One at its limit takes the next escape, which
is 0 when the coefficient just reaches it.

Method 1: one signed byte a symbol, compressed by zstd. Method 2: the 32-bit words of `constriction`'s range coder
(queue.RangeEncoder), each symbol plus its limit under Categorical(frequencies of -L to L as float32, perfect=False).

The bound: what decodes differs by MOST_OFF steps at most (by half a step where every magnitude is as likely), and by
LEFT_OUT steps where a coefficient was not sent, beside what float32 rounds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from math import prod
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.entropy_tables import ID_BYTES, LEVELS_PER_OCTAVE, MAX_LIMIT, TOTAL, Tables, read_tables
from splitbus_schemas.errors import DecodeError, VersionError
from splitbus_schemas.limits import MAX_TENSOR_BYTES
from splitbus_schemas.rounding import reaches, whole_steps
from splitbus_schemas.zstd import compress, decompress

FRAME_VERSION: Final = 1
METHODS: Final = {"zstd": 1, "range": 2}
LEFT_OUT: Final = 1.5
"""Below so many steps a coefficient may be left out; where one is larger, all are sent. Half a step more than a whole
number, so that what was decoded is coded in the same way by a node that passes it on."""

_NOTHING: Final = 0
_ALL: Final = 128
_MAGIC: Final = 0x54
_PREFIX: Final = struct.Struct(f"<BBBb{ID_BYTES}sI")
_BYTE_LIMIT: Final = 127
_ESCAPE_BYTES: Final = 2
_LAYOUTS: Final = 4  # settings whose order of coding is kept: a plan has one, its alternates few
MAX_COEFFICIENTS: Final = MAX_TENSOR_BYTES // 4  # as float32
MAX_MAGNITUDE: Final = 2**15 - 1


Floats = NDArray[np.float32]
Ints = NDArray[np.int16]
AnyInt = TypeVar("AnyInt", np.int16, np.int32)


def step_of(shift: int) -> float:
    """The step of a strength, a float32 number; 1 is the root mean square of all coefficients."""
    return float(np.float32(2.0 ** (shift / LEVELS_PER_OCTAVE)))


Run: TypeAlias = tuple[int, int, int]
"""Table, and start and end for one sample."""


@dataclass(frozen=True)
class Layout:
    """Which coefficients are sent, in which order, and where each table's run ends in it."""

    order: NDArray[np.intp]
    left_out: NDArray[np.intp]
    runs: tuple[Run, ...]
    limits: Ints


class Coder:
    """Codes coefficients under one set of tables; may be used by several threads."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.layout = lru_cache(maxsize=_LAYOUTS)(self._arrange)
        self.reaches = lru_cache(maxsize=_LAYOUTS)(partial(reaches, tables))

    def encode(self, values: NDArray[Any], shift: int, method: str = "range") -> bytes | None:
        """The frame of coefficients of shape (batch, *tables.shape), in any float type.

        None for what cannot be coded within the bound: not finite, or 32767 steps and more. Raises ValueError when the
        shape does not fit the tables, a program's mistake.
        """
        if values.shape[1:] != self.tables.shape or not values.size:
            raise ValueError(f"coefficients have shape {list(values.shape)}, the tables {list(self.tables.shape)}")
        scaled = values.astype(np.float32).reshape(len(values), -1) * np.float32(1 / step_of(shift))
        if not np.abs(scaled).max() < MAX_MAGNITUDE:  # also where it is not a number
            return None
        layout, flag = self.layout(shift, all_sent=False), 0
        if layout.left_out.size and np.abs(scaled[:, layout.left_out]).max() >= LEFT_OUT:
            layout, flag = self.layout(shift, all_sent=True), _ALL
        symbols: Ints = whole_steps(scaled, self.reaches(shift))[:, layout.order].T.ravel()
        number = METHODS[method] if symbols.any() else _NOTHING
        escapes, body = b"", b""
        if number:
            limits = _limits(layout, len(values), number)
            escapes, symbols = cut_off(symbols, limits)
            if number == METHODS["range"]:
                body = self.write_range(symbols, limits, layout.runs, len(values))
            else:
                body = compress(symbols.astype(np.int8).tobytes())
        head = _PREFIX.pack(
            _MAGIC, FRAME_VERSION, number | (flag if number else 0), shift, self.tables.id, len(escapes) // 2
        )
        return b"".join((head, escapes, body))

    def decode(self, frame: bytes | memoryview, shape: tuple[int, ...]) -> Floats:
        """The coefficients of a frame, of `shape`.

        Raises DecodeError for a frame that is damaged, hostile, or made with other tables. Allocates some twenty bytes
        for each coefficient of the shape, and nothing before that was checked.
        """
        if not shape or shape[1:] != self.tables.shape or not 0 < prod(shape) <= MAX_COEFFICIENTS:
            raise DecodeError(f"coefficients have shape {list(shape)}, their tables {list(self.tables.shape)}")
        head = _read_head(frame)
        if head.tables != self.tables.id:
            raise DecodeError(f"frame is coded with tables {head.tables.hex()}, here are {self.tables.id.hex()}")
        batch = shape[0]
        values = np.zeros((batch, prod(self.tables.shape)), np.float32)
        if head.method != _NOTHING:
            layout = self.layout(head.shift, all_sent=head.all_sent)
            limits = _limits(layout, batch, head.method)
            if head.method == METHODS["range"]:
                symbols = self.read_range(head.body, limits, layout.runs, batch)
            else:
                symbols = _read_bytes(head.body, layout, batch)
            symbols = restore(symbols, limits, head.escapes)
            values[:, layout.order] = symbols.reshape(-1, batch).T * np.float32(step_of(head.shift))
        return values.reshape(shape)

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Bits of each magnitude from 0 to MAX_LIMIT, under each table; (tables, MAX_LIMIT + 1)."""
        found = np.empty((len(self.tables.frequencies), MAX_LIMIT + 1))
        for row, table in zip(found, self.tables.frequencies, strict=True):
            bits = np.log2(TOTAL) - np.log2(table.astype(np.float64))
            row[: len(bits)], row[len(bits) - 1 :] = bits, bits[-1] + 8 * _ESCAPE_BYTES
        return found

    @cached_property
    def _models(self) -> list[Any]:
        return [_model(table) for table in self.tables.frequencies]

    def _arrange(self, shift: int, *, all_sent: bool) -> Layout:
        tables = self.tables
        number = tables.levels.ravel().astype(np.int16) - shift - tables.first
        number = np.clip(number, 0 if all_sent else -1, len(tables.frequencies) - 1)
        order = np.argsort(number, kind="stable")
        first = int(np.searchsorted(number[order], 0))
        left_out, order = order[:first], order[first:]
        chosen = number[order]
        starts = np.flatnonzero(np.diff(chosen, prepend=-1))
        ends = [*starts[1:], len(chosen)][: len(starts)]
        runs = tuple((int(chosen[start]), int(start), int(end)) for start, end in zip(starts, ends, strict=True))
        limits = np.array([len(table) - 1 for table in tables.frequencies], np.int16)[chosen]
        return Layout(order, left_out, runs, limits)

    def write_range(self, symbols: NDArray[Any], limits: Ints, runs: Sequence[Run], batch: int) -> bytes:
        """The range coder's words for runs of symbols that lie within their limits, and one behind the other."""
        coder = _library().stream.queue.RangeEncoder()
        shifted = (symbols + limits).astype(np.int32)
        for table, start, end in runs:
            coder.encode(shifted[start * batch : end * batch], self._models[table])
        words: NDArray[np.uint32] = coder.get_compressed()
        return words.astype("<u4").tobytes()

    def read_range(self, body: memoryview, limits: Ints, runs: Sequence[Run], batch: int) -> Ints:
        """What `write_range` was given, with these limits and runs. Raises DecodeError."""
        if len(body) % 4:
            raise DecodeError(f"range coder's words take {len(body)} bytes, which is no multiple of 4")
        coder = _library().stream.queue.RangeDecoder(np.frombuffer(body, "<u4").astype(np.uint32))
        symbols = np.empty(runs[-1][2] * batch if runs else 0, np.int16)
        try:
            for table, start, end in runs:
                symbols[start * batch : end * batch] = coder.decode(self._models[table], (end - start) * batch)
        except (AssertionError, ValueError) as error:
            raise DecodeError(f"range coder's words cannot be decoded: {error}") from None
        if not coder.maybe_exhausted():
            raise DecodeError("range coder's words go on behind the last coefficient")
        symbols -= limits
        return symbols


def read_coder(blob: bytes | memoryview) -> Coder:
    """The coder of a blob of tables. Raises DecodeError."""
    return Coder(read_tables(blob))


@dataclass(frozen=True)
class _Head:
    method: int
    all_sent: bool
    shift: int
    tables: bytes
    escapes: NDArray[np.uint16]
    body: memoryview


def _read_head(frame: bytes | memoryview) -> _Head:
    view = memoryview(frame)
    if len(view) < _PREFIX.size:
        raise DecodeError(f"coefficient frame has {len(view)} bytes, its header alone {_PREFIX.size}")
    magic, version, flags, shift, tables, escapes = _PREFIX.unpack_from(view)
    if magic != _MAGIC:
        raise DecodeError(f"coefficient frame begins with {magic:#x}, not with {_MAGIC:#x}")
    if version != FRAME_VERSION:
        raise VersionError("coefficient frame", version, FRAME_VERSION)
    method = flags & ~_ALL
    if flags != _NOTHING and method not in METHODS.values():
        raise DecodeError(f"coefficient frame uses method {flags}, known are 0 to {max(METHODS.values())}, plus {_ALL}")
    if flags == _NOTHING and len(view) != _PREFIX.size:
        raise DecodeError("coefficient frame says that all is zero, but goes on")
    body = _PREFIX.size + 2 * escapes
    if len(view) < body:
        raise DecodeError(f"coefficient frame of {len(view)} bytes cannot hold {escapes} escapes")
    found = np.frombuffer(view[_PREFIX.size : body], "<u2")
    return _Head(method, bool(flags & _ALL), shift, tables, found, view[body:])


def _library() -> Any:
    """Imported where it is first used: most nodes never code a tensor so."""
    import constriction  # noqa: PLC0415

    return constriction


def _model(frequencies: NDArray[np.uint16]) -> Any:
    """The distribution of -L to L."""
    return _library().stream.model.Categorical(
        np.concatenate((frequencies[:0:-1], frequencies)).astype(np.float32), perfect=False
    )


def _limits(layout: Layout, batch: int, method: int) -> Ints:
    """The limit of each symbol, or one for all."""
    if method != METHODS["range"]:
        return np.array(_BYTE_LIMIT, np.int16)
    return layout.limits if batch == 1 else np.repeat(layout.limits, batch)


def cut_off(symbols: NDArray[AnyInt], limits: Ints) -> tuple[bytes, NDArray[AnyInt]]:
    """The escapes of the symbols that reach their limits, and the symbols within them."""
    cut = np.clip(symbols, -limits, limits)
    beyond = np.abs(cut) == limits
    if not beyond.any():
        return b"", symbols
    return (np.abs(symbols[beyond]) - np.abs(cut[beyond])).astype("<u2").tobytes(), cut


def restore(
    symbols: NDArray[AnyInt], limits: Ints, escapes: NDArray[np.uint16], most: int = MAX_MAGNITUDE
) -> NDArray[AnyInt]:
    """The symbols with what their escapes add; they are changed in place. Raises DecodeError."""
    beyond = np.flatnonzero(np.abs(symbols) == limits)
    if len(beyond) != len(escapes):
        raise DecodeError(f"coefficient frame has {len(escapes)} escapes, its symbols ask for {len(beyond)}")
    if len(beyond):
        cut = symbols[beyond].astype(np.int32)
        full = cut + np.sign(cut) * escapes.astype(np.int32)
        if np.abs(full).max() > most:
            raise DecodeError(f"coefficient frame has a magnitude beyond {most}")
        symbols[beyond] = full
    return symbols


def _read_bytes(body: memoryview, layout: Layout, batch: int) -> Ints:
    decoded = decompress(body, len(layout.order) * batch)
    return np.frombuffer(decoded, np.int8).astype(np.int16)
