r"""How a document carries its signature: as its last member, over the very bytes before it. Pure; no cryptography here.

`{"v":1,"plan":"p12","signature":"..."}` is signed as `TOPIC\n{"v":1,"plan":"p12"}`. Nothing is written anew to be
checked, so no rule for canonical JSON is needed, and a document says nothing before its signature was found good. The
topic is signed with it: a plan of one device is none for another, and a work order is no plan.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from splitbus_schemas.errors import ConfigError, PayloadTooLargeError, SignatureError
from splitbus_schemas.limits import MAX_JSON_BYTES, SIGNATURE_BYTES

SLICE: Final = "slice"
"""What stands in the topic's place for a slice's manifest, which goes by its hash."""

KEY_PREFIX: Final = "ed25519:"
KEY_BYTES: Final = 32

_END: Final = re.compile(rb',"signature":"([A-Za-z0-9+/]{86}==)"\}')
_END_BYTES: Final = len(b',"signature":""}') + SIGNATURE_BYTES


def signed_bytes(context: str, body: bytes) -> bytes:
    """What is signed: the topic, or SLICE, and the document without its signature."""
    return context.encode() + b"\n" + body


def attach(body: bytes, signature: bytes) -> bytes:
    """The document with its signature as last member. Raises PayloadTooLargeError."""
    data = b'%b,"signature":"%b"}' % (body[:-1], base64.b64encode(signature))
    if len(data) > MAX_JSON_BYTES:
        raise PayloadTooLargeError("a signed message", len(data), MAX_JSON_BYTES)
    return data


def detach(what: str, payload: bytes) -> tuple[bytes, bytes]:
    """The document without its signature, and the signature. Raises SignatureError when it ends with none."""
    if len(payload) > MAX_JSON_BYTES:
        raise SignatureError("unsigned", f"{what} has {len(payload)} bytes, the limit is {MAX_JSON_BYTES}")
    end = _END.fullmatch(payload, max(0, len(payload) - _END_BYTES))
    if end is None:
        raise SignatureError("unsigned", f"{what} is not signed, and gateway_key wants it to be")
    return payload[: end.start()] + b"}", base64.b64decode(end[1])


def write_key(key: bytes) -> str:
    """A public key as settings and people carry it."""
    return KEY_PREFIX + base64.b64encode(key).decode()


def read_key(text: str) -> bytes:
    """The public key in `text`. Raises ConfigError."""
    try:
        key = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(KEY_PREFIX) or len(key) != KEY_BYTES:
        raise ConfigError(
            f"{text[:80]!r} is no public key: write {KEY_PREFIX} and the text that the gateway keeps in signing.pub"
        )
    return key
