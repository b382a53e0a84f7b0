"""Packets in parts: chunks for brokers with small limits, and trains whose duration is the link's goodput.

A part is this prefix and then its bytes:

    offset  size  field
    0       4     magic "SBpt"
    4       1     wire version
    5       1     zero
    6       2     number of parts, little endian
    8       2     index of this part
    10      2     zero
    12      4     offset of its bytes in the packet
    16      4     length of the packet
    20      8     a number that all parts of the packet share
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.limits import (
    MAX_PACKET_BYTES,
    MAX_PARTIAL_PACKETS,
    MAX_PARTS,
    PARTIAL_SECONDS,
    TRAIN_HEAD_BYTES,
    TRAIN_MIN_BYTES,
    WIRE_VERSION,
)

PART_MAGIC: Final = b"SBpt"
_PREFIX: Final = struct.Struct("<4sBBHHHIIQ")
PART_PREFIX_BYTES: Final = _PREFIX.size


@dataclass(frozen=True, slots=True)
class Arrival:
    """A whole packet, and the train that brought it: bytes behind the first part, and how long they took."""

    data: bytes | bytearray
    train_bytes: int = 0
    train_s: float = 0.0


def split(packet: bytes, *, number: int, limit: int, train: bool = False) -> Iterator[bytes | memoryview]:
    """`packet` as payloads of at most `limit` bytes; as a train, its first part is small.

    One payload, the packet itself, when it fits and no train is asked for. Raises PayloadTooLargeError.
    """
    train = train and len(packet) >= TRAIN_MIN_BYTES
    if len(packet) <= limit and not train:
        yield packet
        return
    room = limit - PART_PREFIX_BYTES
    ends = _ends(len(packet), room, first=min(room, TRAIN_HEAD_BYTES) if train else room)
    if len(ends) > MAX_PARTS:
        raise PayloadTooLargeError(f"packet in parts of {limit} bytes", len(packet), room * MAX_PARTS)
    view = memoryview(packet)
    begin = 0
    for index, end in enumerate(ends):
        prefix = _PREFIX.pack(PART_MAGIC, WIRE_VERSION, 0, len(ends), index, 0, begin, len(packet), number)
        yield b"".join((prefix, view[begin:end]))
        begin = end


def _ends(total: int, room: int, first: int) -> list[int]:
    if room < 1:
        raise PayloadTooLargeError("part", PART_PREFIX_BYTES + 1, PART_PREFIX_BYTES + room)
    ends = [min(first, total)]
    while ends[-1] < total:
        ends.append(min(ends[-1] + room, total))
    return ends


@dataclass(slots=True)
class _Partial:
    count: int
    data: bytearray
    started: float
    first_bytes: int
    seen: set[int] = field(default_factory=set)
    filled: int = 0


class Assembler:
    """Puts parts together, for one topic. Bounded: few packets at a time, each for a limited time."""

    def __init__(self) -> None:
        self._partials: dict[int, _Partial] = {}
        self.abandoned = 0

    def feed(self, payload: bytes | bytearray, now: float) -> Arrival | None:
        """The packet that `payload` completes, if it does. `now` in seconds. Raises DecodeError."""
        if payload[:4] != PART_MAGIC:
            return Arrival(payload)
        self._expire(now)
        if len(payload) < PART_PREFIX_BYTES:
            raise DecodeError(f"part has {len(payload)} bytes, its prefix alone needs {PART_PREFIX_BYTES}")
        _, version, zero, count, index, zero2, offset, total, number = _PREFIX.unpack_from(payload)
        if version != WIRE_VERSION:
            raise VersionError("part", version, WIRE_VERSION)
        length = len(payload) - PART_PREFIX_BYTES
        _check(zero or zero2, count, index, offset, total, length)
        partial = self._partials.get(number)
        if partial is None:
            partial = self._begin(number, count, total, length, now)
        if (partial.count, len(partial.data)) != (count, total):
            raise DecodeError("part disagrees with an earlier part of its packet")
        if index in partial.seen:
            raise DecodeError(f"part {index} came twice")
        partial.seen.add(index)
        partial.filled += length
        partial.data[offset : offset + length] = memoryview(payload)[PART_PREFIX_BYTES:]
        if len(partial.seen) < count:
            return None
        del self._partials[number]
        if partial.filled != total:
            raise DecodeError(f"parts hold {partial.filled} bytes, the packet has {total}")
        return Arrival(partial.data, total - partial.first_bytes, now - partial.started)

    def _begin(self, number: int, count: int, total: int, first_bytes: int, now: float) -> _Partial:
        if len(self._partials) >= MAX_PARTIAL_PACKETS:
            del self._partials[min(self._partials, key=lambda key: self._partials[key].started)]
            self.abandoned += 1
        partial = _Partial(count, bytearray(total), now, first_bytes)
        self._partials[number] = partial
        return partial

    def _expire(self, now: float) -> None:
        for number, partial in list(self._partials.items()):
            if now - partial.started > PARTIAL_SECONDS:
                del self._partials[number]
                self.abandoned += 1


def _check(reserved: int, count: int, index: int, offset: int, total: int, length: int) -> None:
    if reserved:
        raise DecodeError("part has a reserved field that is not zero")
    if not 2 <= count <= MAX_PARTS or index >= count:
        raise DecodeError(f"part {index} of {count} is out of range")
    if total > MAX_PACKET_BYTES:
        raise DecodeError(f"packet in parts has {total} bytes, the limit is {MAX_PACKET_BYTES}")
    if not length or offset + length > total:
        raise DecodeError(f"part of {length} bytes at {offset} does not fit a packet of {total}")
