"""What every JSON message is: frozen, versioned, lenient towards what later versions add; and the types of fields."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from splitbus_schemas.codecs import CODINGS
from splitbus_schemas.errors import DecodeError, PayloadTooLargeError, VersionError
from splitbus_schemas.lean import LeanModel
from splitbus_schemas.limits import (
    MAX_ID_BYTES,
    MAX_INTEGER,
    MAX_JSON_BYTES,
    MAX_MBIT,
    MAX_MILLISECONDS,
    MIN_MBIT,
    WIRE_VERSION,
)
from splitbus_schemas.seal_keys import KEY_ID_CHARS

Tier = Literal["device", "edge", "cloud"]
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=MAX_ID_BYTES)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Milliseconds = Annotated[float, Field(ge=0, le=MAX_MILLISECONDS)]
Mbit = Annotated[float, Field(ge=MIN_MBIT, le=MAX_MBIT)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Coding = Annotated[str, Field(pattern=f"^({'|'.join(CODINGS)})$")]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
KeyId = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{KEY_ID_CHARS}}}$")]
PublicKey = Annotated[str, Field(pattern=r"^x25519:[A-Za-z0-9+/]{43}=$")]
Signature = Annotated[str | None, Field(description="The gateway's Ed25519 signature; always the last member.")]


class Message(LeanModel):
    """Base of all JSON messages: frozen, versioned, and lenient towards fields of a later version."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: int = Field(default=WIRE_VERSION, description="Version of the wire contract.")

    def to_json(self) -> bytes:
        """UTF-8 JSON, fields that are None left out. Raises PayloadTooLargeError."""
        data = self.model_dump_json(exclude_none=True).encode()
        if len(data) > MAX_JSON_BYTES:
            raise PayloadTooLargeError(type(self).__name__, len(data), MAX_JSON_BYTES)
        return data

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The message in `data`; DecodeError names the field that is wrong."""
        return decode_message(cls, data)


M = TypeVar("M", bound=Message)

MAX_LISTED_ERRORS = 1000
"""Of more, none is named: each would become an object of a kilobyte first."""


def decode_message(kind: type[M], data: bytes) -> M:
    """The message of type `kind` in `data`. Raises DecodeError (VersionError for another version)."""
    what = kind.__name__
    if len(data) > MAX_JSON_BYTES:
        raise DecodeError(f"{what} has {len(data)} bytes, the limit is {MAX_JSON_BYTES}")
    try:  # not model_validate_json: each of its errors holds a copy of the document
        message = kind.model_validate(from_json(data))
    except ValidationError as error:
        _check_version(what, _version(data))
        if error.error_count() > MAX_LISTED_ERRORS:
            raise DecodeError(f"{what}: {error.error_count()} values are wrong") from None
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise DecodeError(f"{what}: {place[:200]}: {first['msg'][:200]}") from None
    except ValueError as error:
        raise DecodeError(f"{what}: the document: Invalid JSON: {str(error)[:200]}") from None
    _check_version(what, message.v)
    return message


class _Envelope(BaseModel):
    v: int = WIRE_VERSION


def _version(data: bytes) -> int:
    """The version of a document that is no message of ours, which a later version may well be."""
    try:
        return _Envelope.model_validate_json(data).v
    except ValidationError:
        return WIRE_VERSION


def _check_version(what: str, version: int) -> None:
    if version != WIRE_VERSION:
        raise VersionError(what, version, WIRE_VERSION)


class Part(LeanModel):
    """Base of what stands inside messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
