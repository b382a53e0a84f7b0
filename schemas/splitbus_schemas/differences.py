"""Coefficients as differences from an earlier frame's: the temporal form of a transform codec's tensor.

A frame of version 2, little-endian; version 1 is in `entropy`, and all that is not said here is as there:

| offset | bytes | what |
| --- | --- | --- |
| 0 | 1 | 0x54 |
| 1 | 1 | version, 2 |
| 2 | 1 | method: 0 nothing follows; 2 range coder; plus 128: all sent |
| 3 | 1 | shift |
| 4 | 8 | id of the tables |
| 12 | 8 | name of the reference (see references); 8 zeros for a key frame, which needs none |
| 20 | 4 | number of escapes E |
| 24 | 2 E | escapes |
| | ceil(R/8) | not in a key frame: for each of the R tables in use, in order, lowest first, a bit: its run is there |
| | 1 each | not in a key frame: how each of these runs is coded |
| | | words of the range coder: the runs that are there, in order |

The receiver keeps the integers of every frame of version 2 as a reference for later ones. In a key frame all runs are
there, as in version 1. Else a run that is not there is as in the reference. One that is there is coded as 255: without
the reference, by its own table; or as the number of a table: its symbols are the differences, and that table's limit
holds. Coefficients that are not sent are zero, whatever they are in the reference. Under method 0 all is zero in a key
frame, and else as in the reference.

Integers that were rounded afresh flicker where a value lies between two of them. A sender may stay with the reference's
integer while the value lies within SLACK steps of it; nothing drifts, because both ends count in integers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.entropy import (
    LEFT_OUT,
    MAX_COEFFICIENTS,
    MAX_MAGNITUDE,
    Coder,
    Ints,
    Layout,
    Run,
    cut_off,
    restore,
    step_of,
)
from splitbus_schemas.entropy_tables import ID_BYTES, MAX_LIMIT
from splitbus_schemas.errors import DecodeError, MissingReferenceError
from splitbus_schemas.references import NAME_BYTES, NO_NAME, Held, Reference
from splitbus_schemas.rounding import whole_steps

DIFFERENCE_VERSION: Final = 2

SLACK: Final = 0.6
"""Steps by which a value may lie off its integer before it is told. A half rounds afresh; 0.6 sends 0.66 to 0.9
times the bytes of that, 0.75 0.5 to 0.8 times, but at coarse steps answers agree less often then."""

STILL_SLACK: Final = 0.75
"""For scenes that hardly move."""

_AFRESH: Final = 0.5
_MAGIC: Final = 0x54
_PREFIX: Final = struct.Struct(f"<BBBb{ID_BYTES}s{NAME_BYTES}sI")
_NOTHING: Final = 0
_RANGE: Final = 2
_ALL: Final = 128
_ALONE: Final = 255
_SIDE_BITS: Final = 8 * 8
"""What a difference costs beside its symbols, mask included, and a key frame does not."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A frame that refers to an earlier one."""

    frame: bytes
    share: float
    """Its estimated size over that of a key frame; 0 when nothing differs."""


def is_temporal(frame: bytes | memoryview) -> bool:
    """Whether it is a frame of version 2."""
    return len(frame) > 1 and frame[0] == _MAGIC and frame[1] == DIFFERENCE_VERSION


def settle(
    coder: Coder, values: NDArray[Any], shift: int, held: Reference | None = None, slack: float = SLACK
) -> Reference | None:
    """The integers of coefficients (batch, *tables.shape), which stay with those of `held` within `slack` steps.

    Beside a `held` that does not suit, and with a slack of a half, they are those of version 1. None for what cannot be
    coded: not finite, or 32767 steps and more. Raises ValueError for another shape than the tables'.
    """
    if values.shape[1:] != coder.tables.shape or not values.size:
        raise ValueError(f"coefficients have shape {list(values.shape)}, the tables {list(coder.tables.shape)}")
    scaled = values.astype(np.float32).reshape(len(values), -1) * np.float32(1 / step_of(shift))
    if not np.abs(scaled).max() < MAX_MAGNITUDE:  # also where it is not a number
        return None
    steps: Ints = whole_steps(scaled, coder.reaches(shift))
    left_out = coder.layout(shift, all_sent=False).left_out
    found = Reference(steps, shift, coder.tables.id)
    if held is not None and slack > _AFRESH and held.suits(found):
        near = np.abs(scaled - held.steps) <= slack
        steps[near] = held.steps[near]
    if left_out.size and np.abs(scaled[:, left_out]).max() < LEFT_OUT:
        steps[:, left_out] = 0
    steps.flags.writeable = False
    return found


def key_frame(coder: Coder, now: Reference) -> bytes:
    """The frame of integers that needs no reference."""
    layout, flag = _layout_of(coder, now)
    symbols = _in_order(now, layout)
    if not symbols.any():
        return _head(now, _NOTHING, NO_NAME, 0)
    batch = len(now.steps)
    limits = np.repeat(layout.limits, batch)
    escapes, symbols = cut_off(symbols, limits)
    body = coder.write_range(symbols, limits, layout.runs, batch)
    return b"".join((_head(now, _RANGE | flag, NO_NAME, len(escapes) // 2), escapes, body))


def difference(coder: Coder, now: Reference, before: Reference) -> Difference | None:
    """The frame of integers beside those of a reference; None when that would be no smaller than a key frame."""
    if not before.suits(now):
        return None
    layout, flag = _layout_of(coder, now)
    symbols = _in_order(now, layout)
    changes = symbols - _in_order(before, layout)
    if not changes.any() and np.array_equal(now.steps, before.steps):
        return Difference(_head(now, _NOTHING, before.name, 0), 0.0)
    modes, share = _modes(coder, layout, symbols, changes, len(now.steps))
    if share >= 1:
        return None
    there = np.flatnonzero(modes >= 0)
    alone, limits, runs, places = _runs(coder, layout, modes, len(now.steps))
    escapes, coded = cut_off(np.where(alone, symbols[places], changes[places]), limits)
    body = coder.write_range(coded, limits, runs, len(now.steps))
    mask = np.packbits(modes >= 0, bitorder="little").tobytes()
    head = _head(now, _RANGE | flag, before.name, len(escapes) // 2)
    return Difference(b"".join((head, escapes, mask, modes[there].astype(np.uint8).tobytes(), body)), share)


def decode(coder: Coder, frame: bytes | memoryview, shape: tuple[int, ...], held: Held) -> Reference:
    """The integers of a frame of version 2 for a tensor of `shape`, which `held` keeps from now on.

    Raises MissingReferenceError when `held` lacks the reference, else DecodeError. Allocates some thirty bytes for each
    coefficient of the shape, and nothing before that was checked.
    """
    if not shape or shape[1:] != coder.tables.shape or not 0 < prod(shape) <= MAX_COEFFICIENTS:
        raise DecodeError(f"coefficients have shape {list(shape)}, their tables {list(coder.tables.shape)}")
    method, shift, name, escapes, body = _read_head(frame, coder)
    size = prod(coder.tables.shape)
    before = _find(held, name, Reference(np.broadcast_to(np.int16(0), (shape[0], size)), shift, coder.tables.id))
    if method == _NOTHING:
        now = before or Reference(np.zeros((shape[0], size), np.int16), shift, coder.tables.id)
    else:
        layout = coder.layout(shift, all_sent=bool(method & _ALL))
        steps = _read_steps(coder, layout, before, escapes, body, (shape[0], size))
        now = Reference(steps, shift, coder.tables.id)
    held.keep(now)
    return now


def _read_steps(
    coder: Coder,
    layout: Layout,
    before: Reference | None,
    escapes: NDArray[np.uint16],
    body: memoryview,
    shape: tuple[int, int],
) -> Ints:
    batch = shape[0]
    if before is None:
        own = np.repeat(layout.limits, batch)
        found = restore(coder.read_range(body, own, layout.runs, batch), own, escapes)
    else:
        modes, body = _read_modes(coder, layout, body)
        alone, limits, runs, places = _runs(coder, layout, modes, batch)
        symbols = coder.read_range(body, limits, runs, batch).astype(np.int32)
        symbols = restore(symbols, limits, escapes, 2 * MAX_MAGNITUDE)
        full = _in_order(before, layout)
        full[places] = np.where(alone, symbols, full[places] + symbols)
        if np.abs(full).max(initial=0) > MAX_MAGNITUDE:
            raise DecodeError(f"coefficient frame adds up to a magnitude beyond {MAX_MAGNITUDE}")
        found = full.astype(np.int16)
    steps = np.zeros(shape, np.int16)
    steps[:, layout.order] = found.reshape(-1, batch).T
    steps.flags.writeable = False
    return steps


def _read_modes(coder: Coder, layout: Layout, body: memoryview) -> tuple[NDArray[np.int16], memoryview]:
    """How each run is coded, -1 for one that is not there; and what follows."""
    count = len(layout.runs)
    mask_bytes = -(-count // 8)
    if len(body) < mask_bytes:
        raise DecodeError("coefficient frame ends within its mask of runs")
    mask = np.unpackbits(np.frombuffer(body[:mask_bytes], np.uint8), bitorder="little")
    if mask[count:].any():
        raise DecodeError(f"coefficient frame has more runs than the {count} of its tables")
    there = np.flatnonzero(mask)
    end = mask_bytes + len(there)
    how = np.frombuffer(body[mask_bytes:end], np.uint8).astype(np.int16)
    if len(how) < len(there):
        raise DecodeError("coefficient frame does not say how its runs are coded")
    unknown = how[(how != _ALONE) & (how >= len(coder.tables.frequencies))]
    if len(unknown):
        raise DecodeError(f"coefficient frame uses table {unknown[0]} of {len(coder.tables.frequencies)}")
    modes = np.full(count, -1, np.int16)
    modes[there] = how
    return modes, body[end:]


def _runs(
    coder: Coder, layout: Layout, modes: NDArray[np.int16], batch: int
) -> tuple[NDArray[np.bool_], Ints, list[Run], NDArray[np.bool_]]:
    """Of the runs that are there: for each symbol, whether it is coded alone, and its limit; the runs themselves, put
    together; and for each symbol of all runs, whether it is there.
    """
    lengths = np.array([end - start for _, start, end in layout.runs], np.intp)
    own = np.array([table for table, _, _ in layout.runs], np.int16)
    there = modes >= 0
    tables, kept = np.where(modes == _ALONE, own, modes)[there], lengths[there]
    limits = np.array([len(table) - 1 for table in coder.tables.frequencies], np.int16)[tables]
    ends = np.cumsum(kept)
    runs = [(int(t), int(e - n), int(e)) for t, n, e in zip(tables, kept, ends, strict=True)]
    alone = np.repeat(modes[there] == _ALONE, kept * batch)
    return alone, np.repeat(limits, kept * batch), runs, np.repeat(there, lengths * batch)


def _modes(
    coder: Coder, layout: Layout, symbols: NDArray[np.int32], changes: NDArray[np.int32], batch: int
) -> tuple[NDArray[np.int16], float]:
    """How each run is coded in the fewest bits, -1 for not at all; and the share of a key frame's bits that this is."""
    lengths = np.array([end - start for _, start, end in layout.runs]) * batch
    own = np.array([table for table, _, _ in layout.runs], np.intp)
    run_of = np.repeat(np.arange(len(lengths)), lengths)
    counts = _histograms(symbols, run_of, lengths)
    alone = np.einsum("rm,rm->r", counts, coder.costs[own, : counts.shape[1]])
    counts = _histograms(changes, run_of, lengths)
    bits = np.einsum("rm,tm->rt", counts, coder.costs[:, : counts.shape[1]])  # no BLAS: its threads wait for each other
    best = bits.argmin(axis=1)
    least = bits[np.arange(len(best)), best]
    modes = np.where(alone < least, _ALONE, best).astype(np.int16)
    there = counts[:, 0] < lengths
    modes[~there] = -1
    total = np.minimum(alone, least)[there].sum() + 8 * np.count_nonzero(there) + _SIDE_BITS
    return modes, float(total / max(alone.sum(), 1.0))


def _histograms(symbols: NDArray[np.int32], run_of: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.float64]:
    """How often each magnitude stands in each run, up to the largest there is; MAX_LIMIT for all beyond."""
    there = np.flatnonzero(symbols)
    sizes = np.minimum(np.abs(symbols[there]), MAX_LIMIT)
    width = int(sizes.max(initial=0)) + 1
    cells = run_of[there] * width + sizes
    counts = np.bincount(cells, minlength=len(lengths) * width).reshape(-1, width).astype(np.float64)
    counts[:, 0] = lengths - counts.sum(axis=1)
    return counts


def _layout_of(coder: Coder, now: Reference) -> tuple[Layout, int]:
    layout = coder.layout(now.shift, all_sent=False)
    if layout.left_out.size and now.steps[:, layout.left_out].any():
        return coder.layout(now.shift, all_sent=True), _ALL
    return layout, 0


def _in_order(reference: Reference, layout: Layout) -> NDArray[np.int32]:
    return reference.steps[:, layout.order].T.astype(np.int32).ravel()


def _head(now: Reference, method: int, name: bytes, escapes: int) -> bytes:
    return _PREFIX.pack(_MAGIC, DIFFERENCE_VERSION, method, now.shift, now.tables, name, escapes)


def _read_head(frame: bytes | memoryview, coder: Coder) -> tuple[int, int, bytes, NDArray[np.uint16], memoryview]:
    """Method with its flag, shift, name of the reference, escapes, and what follows."""
    view = memoryview(frame)
    if len(view) < _PREFIX.size or not is_temporal(view):
        raise DecodeError(f"coefficient frame of {len(view)} bytes has no header of version {DIFFERENCE_VERSION}")
    _, _, method, shift, tables, name, escapes = _PREFIX.unpack_from(view)
    if tables != coder.tables.id:
        raise DecodeError(f"frame is coded with tables {tables.hex()}, here are {coder.tables.id.hex()}")
    if method not in {_NOTHING, _RANGE, _RANGE | _ALL}:
        raise DecodeError(f"coefficient frame of version {DIFFERENCE_VERSION} uses method {method}")
    if method == _NOTHING and len(view) != _PREFIX.size:
        raise DecodeError("coefficient frame says that nothing follows, but goes on")
    begin = _PREFIX.size + 2 * escapes
    if len(view) < begin:
        raise DecodeError(f"coefficient frame of {len(view)} bytes cannot hold {escapes} escapes")
    return method, shift, name, np.frombuffer(view[_PREFIX.size : begin], "<u2"), view[begin:]


def _find(held: Held, name: bytes, like: Reference) -> Reference | None:
    """The reference; None for a key frame."""
    if name == NO_NAME:
        return None
    before = held.find(name)
    if before is None:
        raise MissingReferenceError(name)
    if not before.suits(like):
        raise DecodeError(f"reference {name.hex()} is of another shape, strength or set of tables")
    return before
