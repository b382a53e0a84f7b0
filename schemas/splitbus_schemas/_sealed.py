"""How sealed packets are written and read: the header of a job or result with one row more, the body sealed as one."""

from __future__ import annotations

from typing import Any, Final

import msgpack

from splitbus_schemas._kinds import KINDS_BY_TYPE, Kind
from splitbus_schemas.errors import DecodeError
from splitbus_schemas.packet_types import Job, Result, Seal, Sealed
from splitbus_schemas.reader import Reader
from splitbus_schemas.seal_keys import KEY_BYTES

TAG_BYTES: Final = 16
"""Of Poly1305, behind the sealed bytes."""

SEALED_KINDS: Final = {7: KINDS_BY_TYPE[Job], 8: KINDS_BY_TYPE[Result]}
_NUMBERS: Final = {kind.type: number for number, kind in SEALED_KINDS.items()}


def sealed_number(clear: Job | Result) -> int:
    """The kind of the packet that seals this one."""
    return _NUMBERS[type(clear)]


def write_clear(packet: Job | Result, seal: Seal) -> tuple[bytes, bytes]:
    """The header of the sealed packet, and the body that is to be sealed. Raises PayloadTooLargeError."""
    header, body = KINDS_BY_TYPE[type(packet)].write(packet)
    row: list[Any] = [seal.sender, seal.key, seal.era, seal.share, seal.number]
    packed: bytes = msgpack.packb({**header, "seal": row})
    return packed, b"".join(body)


def read_sealed(kind: Kind, header: bytes, reader: Reader, body: memoryview) -> Sealed:
    """A sealed packet as everybody reads it. Raises DecodeError."""
    if len(body) < TAG_BYTES:
        raise DecodeError(f"sealed {kind.name}: the body has {len(body)} bytes, its tag alone needs {TAG_BYTES}")
    row = reader.row("seal", columns=5)
    seal = Seal(row.id(0), row.id(1), row.id(2), row.binary(3, KEY_BYTES), row.integer(4))
    clear = kind.read(reader, body[:-TAG_BYTES])
    if not isinstance(clear, Job | Result):
        raise DecodeError(f"{kind.name} is nothing that is sealed")
    if isinstance(clear, Job) and not clear.answer:
        raise DecodeError("sealed job: answer is missing")
    return Sealed(clear, seal, header, body)
