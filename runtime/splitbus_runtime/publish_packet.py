"""Reads an MQTT 5 PUBLISH of QoS 0. paho copies the whole message for each of its properties; this copies it once."""

from __future__ import annotations

import struct
from typing import Final

from splitbus_runtime.bus import Delivery
from splitbus_schemas.errors import DecodeError

_U16 = struct.Struct("!H")

USER_PROPERTY: Final = 0x26
SUBSCRIPTION_ID: Final = 0x0B
FIXED: Final = {0x01: 1, 0x02: 4, 0x23: 2}
"""Lengths of payload format, message expiry and topic alias."""
TEXTS: Final = {0x03, 0x08, 0x09}
"""Content type, response topic and correlation data: a length in two bytes, and so many bytes."""


def read_publish(packet: bytes | bytearray, *, retain: bool) -> Delivery:
    """The message in what follows the fixed header (MQTT 5, 3.3). Raises DecodeError."""
    try:
        return _read(packet, retain=retain)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DecodeError(f"PUBLISH of {len(packet)} bytes cannot be read: {error}") from None


def _read(packet: bytes | bytearray, *, retain: bool) -> Delivery:
    topic, at = _text(packet, 0)
    length, at = _varint(packet, at)
    end = at + length
    if end > len(packet):
        raise DecodeError(f"PUBLISH announces {length} bytes of properties, {len(packet) - at} are there")
    user = []
    while at < end:
        kind = packet[at]
        at += 1
        if kind == USER_PROPERTY:
            key, at = _text(packet, at)
            value, at = _text(packet, at)
            user.append((key, value))
        elif kind == SUBSCRIPTION_ID:
            _, at = _varint(packet, at)
        elif kind in TEXTS:
            at += 2 + _U16.unpack_from(packet, at)[0]
        elif kind in FIXED:
            at += FIXED[kind]
        else:
            raise DecodeError(f"PUBLISH has property {kind:#x}, which MQTT 5 does not know there")
    if at != end:
        raise DecodeError("PUBLISH has a property that ends beyond the others")
    return Delivery(topic, bytes(memoryview(packet)[end:]), retain, tuple(user))


def _text(packet: bytes | bytearray, at: int) -> tuple[str, int]:
    begin = at + 2
    end = begin + _U16.unpack_from(packet, at)[0]
    if end > len(packet):
        raise DecodeError("PUBLISH has a text that ends beyond it")
    return packet[begin:end].decode(), end


def _varint(packet: bytes | bytearray, at: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14, 21):
        byte = packet[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError("PUBLISH has a length of more than four bytes")
