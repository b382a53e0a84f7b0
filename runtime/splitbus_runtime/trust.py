"""Whom a node believes: the gateways whose public keys it was given. Without any it believes its broker, as ever."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self, TypeAlias

from splitbus_schemas.errors import ConfigError, SignatureError
from splitbus_schemas.signature import KEY_PREFIX, detach, read_key, signed_bytes

MAX_KEYS: Final = 8
"""The present gateway, its stand-in, and the next key of each."""

Verify: TypeAlias = Callable[[bytes, bytes], bool]


class Trust:
    """What the trusted gateways signed passes; without keys everything does. Raises ConfigError for what is no key."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        if len(keys) > MAX_KEYS:
            raise ConfigError(f"gateway_key names {len(keys)} keys, the limit is {MAX_KEYS}: remove the old ones")
        self._verify = [_verifier(read_key(key)) for key in keys]

    @classmethod
    def of(cls, setting: str | os.PathLike[str] | None) -> Self:
        """`ed25519:...`, several with commas between them, or a file with one on each line; None trusts everybody."""
        if setting is None or setting == "":
            return cls()
        text = os.fspath(setting)
        keys = text.split(",") if text.startswith(KEY_PREFIX) else _lines(Path(text))
        return cls([key.strip() for key in keys])

    @property
    def asks(self) -> bool:
        """Whether anything has to be signed."""
        return bool(self._verify)

    def open(self, context: str, payload: bytes) -> bytes:
        """The document to read, its signature checked and taken off; empty ones, which remove, and all without keys
        as they are.

        `context` is the topic, or SLICE. Raises SignatureError.
        """
        if not self._verify or not payload:
            return payload
        body, signature = detach(context, payload)
        data = signed_bytes(context, body)
        if not any(verify(signature, data) for verify in self._verify):
            raise SignatureError("forged", f"{context} has a signature of nobody whom gateway_key names")
        return body


def _verifier(key: bytes) -> Verify:
    try:
        ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
        wrong = importlib.import_module("cryptography.exceptions").InvalidSignature
    except ModuleNotFoundError:
        raise ConfigError(
            "gateway_key is set, and checking signatures needs cryptography: pip install 'splitbus[secure]'"
        ) from None
    return functools.partial(_is_good, ed25519.Ed25519PublicKey.from_public_bytes(key).verify, wrong)


def _is_good(check: Callable[[bytes, bytes], None], wrong: type[Exception], signature: bytes, data: bytes) -> bool:
    try:
        check(signature, data)
    except wrong:
        return False
    return True


def _lines(path: Path) -> list[str]:
    """The keys in a file. Raises ConfigError."""
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"gateway_key: {path} cannot be read ({error}): give {KEY_PREFIX}... or a file with one on each line"
        ) from None
    keys = [line for line in lines if line]
    if not keys:
        raise ConfigError(f"gateway_key: {path} holds no key: copy the gateway's signing.pub there")
    return keys
