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
    MAX_PARTIAL_BYTES,
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

    One payload, the packet itself, when it fits and no train is asked for. `number` (64 bits) is the sender's choice,
    and must differ from those of all other packets on the topic, of other senders too. Raises PayloadTooLargeError.
    """
    train = train and len(packet) >= TRAIN_MIN_BYTES
    if len(packet) <= limit and not train:
        yield packet
        return
    ends = _ends(len(packet), limit, train=train)
    view = memoryview(packet)
    begin = 0
    for index, end in enumerate(ends):
        prefix = _PREFIX.pack(PART_MAGIC, WIRE_VERSION, 0, len(ends), index, 0, begin, len(packet), number)
        yield b"".join((prefix, view[begin:end]))
        begin = end


def _ends(total: int, limit: int, *, train: bool) -> list[int]:
    room = max(limit - PART_PREFIX_BYTES, 0)
    first = min(room, TRAIN_HEAD_BYTES) if train else room
    largest = first + room * (MAX_PARTS - 1)
    if total > largest:
        raise PayloadTooLargeError(f"packet in {MAX_PARTS} parts of {limit} bytes", total, largest)
    return [*range(first, total, room), total]


@dataclass(slots=True)
class _Partial:
    """The parts of one packet that have arrived; it holds their bytes and nothing that was only announced."""

    count: int
    total: int
    started: float
    first_bytes: int
    pieces: dict[int, tuple[int, memoryview]] = field(default_factory=dict)
    held: int = 0

    def join(self) -> bytes:
        """The packet. Raises DecodeError unless each part begins where the one before it ends."""
        expected = 0
        for index in range(self.count):
            offset, piece = self.pieces[index]
            if offset != expected:
                raise DecodeError(f"part {index} begins at {offset}, the one before it ends at {expected}")
            expected += len(piece)
        if expected != self.total:
            raise DecodeError(f"parts hold {expected} bytes, the packet has {self.total}")
        return b"".join(self.pieces[index][1] for index in range(self.count))


class Assembler:
    """Puts parts together, for one topic. Bounded: few packets and bytes at a time, each for a limited time."""

    def __init__(self) -> None:
        self._partials: dict[int, _Partial] = {}
        self.abandoned = 0

    @property
    def held_bytes(self) -> int:
        """What has arrived of packets that are not complete."""
        return sum(partial.held for partial in self._partials.values())

    def feed(self, payload: bytes | bytearray, now: float) -> Arrival | None:
        """The packet that `payload` completes, if it does. `now` in seconds. Raises DecodeError.

        A part that is there already is ignored, as the broker may deliver twice. The payload is kept, not copied.
        """
        if payload[:4] != PART_MAGIC:
            return Arrival(payload)
        self._expire(now)
        count, index, offset, total, number = _read_prefix(payload)
        piece = memoryview(payload)[PART_PREFIX_BYTES:]
        partial = self._partials.setdefault(number, _Partial(count, total, now, len(piece)))
        if (partial.count, partial.total) != (count, total):
            raise DecodeError("part disagrees with an earlier part of its packet")
        if index in partial.pieces:
            return None
        partial.pieces[index] = (offset, piece)
        partial.held += len(piece)
        if partial.held > total:
            self._abandon(number)
            raise DecodeError(f"parts hold more than the packet's {total} bytes")
        if len(partial.pieces) == count:
            del self._partials[number]
            return Arrival(partial.join(), total - partial.first_bytes, now - partial.started)
        self._make_room()
        return None

    def _make_room(self) -> None:
        while len(self._partials) > MAX_PARTIAL_PACKETS or self.held_bytes > MAX_PARTIAL_BYTES:
            self._abandon(next(iter(self._partials)))

    def _expire(self, now: float) -> None:
        for number in [key for key, partial in self._partials.items() if now - partial.started > PARTIAL_SECONDS]:
            self._abandon(number)

    def _abandon(self, number: int) -> None:
        del self._partials[number]
        self.abandoned += 1


def _read_prefix(payload: bytes | bytearray) -> tuple[int, int, int, int, int]:
    if len(payload) < PART_PREFIX_BYTES:
        raise DecodeError(f"part has {len(payload)} bytes, its prefix alone needs {PART_PREFIX_BYTES}")
    _, version, zero, count, index, zero2, offset, total, number = _PREFIX.unpack_from(payload)
    length = len(payload) - PART_PREFIX_BYTES
    if version != WIRE_VERSION:
        raise VersionError("part", version, WIRE_VERSION)
    if zero or zero2:
        raise DecodeError("part has a reserved field that is not zero")
    if not 2 <= count <= MAX_PARTS or index >= count:
        raise DecodeError(f"part {index} of {count} is out of range")
    if total > MAX_PACKET_BYTES:
        raise DecodeError(f"packet in parts has {total} bytes, the limit is {MAX_PACKET_BYTES}")
    if not length or offset + length > total:
        raise DecodeError(f"part of {length} bytes at {offset} does not fit a packet of {total}")
    return count, index, offset, total, number
