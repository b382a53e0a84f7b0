"""The keys that packets are sealed with, as settings, lists and people carry them. Pure; no cryptography here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Final

from splitbus_schemas.errors import ConfigError

KEY_BYTES: Final = 32
PUBLIC_PREFIX: Final = "x25519:"
SECRET_PREFIX: Final = "x25519-secret:"  # noqa: S105 - what stands before one

KEY_ID_CHARS: Final = 16
"""Of a key's SHA-256: enough to tell a node's keys apart; which key it is, the gateway's list says whole."""


def key_id(public: bytes) -> str:
    """The name of a public key in packets and status messages: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:KEY_ID_CHARS]


def write_public(public: bytes) -> str:
    """A public key as text."""
    return PUBLIC_PREFIX + base64.b64encode(public).decode()


def write_secret(secret: bytes) -> str:
    """A secret key as text."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def read_public(text: str) -> bytes:
    """The public key in `text`. Raises ConfigError."""
    key = _bytes_behind(PUBLIC_PREFIX, text)
    if key is None:
        raise ConfigError(f"{text[:80]!r} is no public key to seal for: write {PUBLIC_PREFIX} and 32 bytes in base64")
    return key


def read_secret(setting: str | os.PathLike[str]) -> bytes:
    """The secret key in a setting: `x25519-secret:...`, or a file that holds it and that only its owner may read.

    Raises ConfigError, which never shows the key.
    """
    text = os.fspath(setting)
    if text.startswith(SECRET_PREFIX):
        key, where = _bytes_behind(SECRET_PREFIX, text), "seal_key"
    else:
        key, where = _bytes_behind(SECRET_PREFIX, _private_text(Path(text))), f"seal_key: {text}"
    if key is None:
        raise ConfigError(f"{where} holds no secret key: it is the line {SECRET_PREFIX}... that splitbus seal add gave")
    return key


def _bytes_behind(prefix: str, text: str) -> bytes | None:
    if not text.startswith(prefix):
        return None
    try:
        key = base64.b64decode(text.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def _private_text(path: Path) -> str:
    """The first line of a file that nobody else may read. Raises ConfigError."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                f"seal_key: {path} can be read by others, who could open what is sealed: chmod 600 {path}"
            )
        return path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"seal_key: {path} cannot be read ({error}): give {SECRET_PREFIX}..., or a file that holds it"
        ) from None
