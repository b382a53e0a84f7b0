"""The journal's records as bytes: what a device keeps of its durable frames, so that a power cut loses no frame. Pure.

offset  size  field
0       4     magic "SBJ1"
4       1     kind
5       1     zero
6       2     length of the frame's key, in bytes
8       4     length of the facts (msgpack)
12      4     length of the body
16      8     number of the frame
24      4     CRC-32 of segment, offset and everything else
28            key (UTF-8), facts, body

All little endian. A record's checksum covers the place where it was written, so that a copy of a record inside
another's body, or one left behind on the disk from another file, is never taken for a record.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from splitbus_schemas.errors import PayloadTooLargeError
from splitbus_schemas.limits import MAX_HEADER_BYTES, MAX_PACKET_BYTES

MAGIC: Final = b"SBJ1"
_PREFIX: Final = struct.Struct("<4sBBHIIQI")
_UNSIGNED: Final = struct.Struct("<4sBBHIIQ")
_PLACE: Final = struct.Struct("<QQ")
PREFIX_BYTES: Final = _PREFIX.size

MAX_KEY_BYTES: Final = 256
"""A frame's key: a path or a URL of a picture, not the picture."""

MAX_FACTS_BYTES: Final = 4 * MAX_HEADER_BYTES
"""A head's output is kept with the plan that it follows, as JSON: 3 kB usually."""

MAX_BODY_BYTES: Final = 2 * MAX_PACKET_BYTES
"""What crosses the cut, and the outputs that are complete before it."""

Bytes: TypeAlias = bytes | memoryview


class Kind(IntEnum):
    """What a record says of its frame."""

    INPUT = 1
    """It was accepted; the inputs."""
    HEAD = 2
    """The head slice is done; what crosses the cut."""
    ANSWER = 3
    """It was answered, and is about to be delivered; the outputs."""
    APPLIED = 4
    """The caller is done with the answer: never deliver it again."""
    FORGOTTEN = 5
    """It is not kept any longer, and may be given again."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a record lies."""

    segment: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `facts` is msgpack that recorded.py writes and reads."""

    kind: Kind
    key: str
    number: int
    """Of the frame, in the order of acceptance: the same in all its records."""
    facts: bytes = b""
    body: Bytes = b""


def key_objection(key: object) -> str:
    """Why this cannot be a frame's key; "" when it can."""
    if not isinstance(key, str) or not key:
        return f"a frame's key is a text that is not empty, not {key!r}"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return f"the frame's key {key!r} cannot be written as UTF-8"
    return "" if size <= MAX_KEY_BYTES else f"a frame's key has at most {MAX_KEY_BYTES} bytes, not {size}: {key[:40]!r}"


def record_bytes(key: str, facts: bytes, body: Sequence[Bytes]) -> int:
    """How long a record will be."""
    return PREFIX_BYTES + len(key.encode()) + len(facts) + sum(len(piece) for piece in body)


def write_record(
    segment: int, offset: int, kind: Kind, key: str, number: int, facts: bytes = b"", body: Sequence[Bytes] = ()
) -> list[Bytes]:
    """The pieces of a record for this place, to be written one behind the other. Raises PayloadTooLargeError."""
    name = key.encode()
    size = sum(len(piece) for piece in body)
    for what, have, limit in (
        ("key of a frame", len(name), MAX_KEY_BYTES),
        ("list of facts of a record", len(facts), MAX_FACTS_BYTES),
        ("body of a record", size, MAX_BODY_BYTES),
    ):
        if have > limit:
            raise PayloadTooLargeError(what, have, limit)
    unsigned = _UNSIGNED.pack(MAGIC, kind, 0, len(name), len(facts), size, number)
    crc = _checksum(segment, offset, unsigned, (name, facts, *body))
    return [unsigned + crc.to_bytes(4, "little") + name + facts, *body]


def read_record(segment: int, offset: int, data: Bytes) -> tuple[Record, int] | None:
    """The record that begins `data`, which was read from this place, and its length; None when there is none."""
    view = memoryview(data)
    if len(view) < PREFIX_BYTES:
        return None
    magic, kind, zero, name_bytes, fact_bytes, body_bytes, number, crc = _PREFIX.unpack_from(view)
    facts_at = PREFIX_BYTES + name_bytes
    body_at = facts_at + fact_bytes
    end = body_at + body_bytes
    within = name_bytes <= MAX_KEY_BYTES and fact_bytes <= MAX_FACTS_BYTES and body_bytes <= MAX_BODY_BYTES
    if magic != MAGIC or zero or kind not in _KINDS or not within or end > len(view):
        return None
    if _checksum(segment, offset, view[: PREFIX_BYTES - 4], (view[PREFIX_BYTES:end],)) != crc:
        return None
    try:
        key = bytes(view[PREFIX_BYTES:facts_at]).decode()
    except UnicodeDecodeError:
        return None
    return Record(Kind(kind), key, number, bytes(view[facts_at:body_at]), view[body_at:end]), end


@dataclass(frozen=True, slots=True)
class Found:
    """A sound record, or a run of bytes that are none."""

    spot: Spot
    record: Record | None


def scan(segment: int, data: Bytes) -> Iterator[Found]:
    """Everything in a segment's bytes, in order: sound records, and the damage between and behind them.

    Damage loses only the records that it touches: the search goes on with the next sound one.
    """
    view = memoryview(data)
    offset = sound_end = 0
    searchable = data if isinstance(data, bytes) else bytes(view)
    while offset < len(view):
        found = read_record(segment, offset, view[offset:])
        if found is None:
            offset = searchable.find(MAGIC, offset + 1)
            if offset < 0:
                break
            continue
        if offset > sound_end:
            yield Found(Spot(segment, sound_end, offset - sound_end), None)
        record, length = found
        yield Found(Spot(segment, offset, length), record)
        offset = sound_end = offset + length
    if sound_end < len(view):
        yield Found(Spot(segment, sound_end, len(view) - sound_end), None)


_KINDS: Final = frozenset(Kind)


def _checksum(segment: int, offset: int, prefix: Bytes, pieces: Sequence[Bytes]) -> int:
    crc = zlib.crc32(prefix, zlib.crc32(_PLACE.pack(segment, offset)))
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc
