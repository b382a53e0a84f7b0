"""Names that stand in topics: sites, nodes, models, boots; and content hashes."""

from __future__ import annotations

import hashlib
import re

from splitbus_schemas.errors import ConfigError
from splitbus_schemas.limits import MAX_ID_BYTES

_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

MODEL_KEY_CHARS = 16


def is_id(text: str) -> bool:
    """Whether `text` may stand as one level of a topic: [a-z0-9_-], not empty, at most 64 bytes."""
    return len(text) <= MAX_ID_BYTES and _ID.fullmatch(text) is not None


def check_id(what: str, text: str) -> str:
    """`text`, when it may stand in a topic; ConfigError naming `what` otherwise."""
    if not is_id(text):
        raise ConfigError(
            f"{what} {text!r} cannot stand in a topic: use a-z, 0-9, '-' and '_', at most {MAX_ID_BYTES} characters"
        )
    return text


def is_sha256(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hexadecimal."""
    return _SHA256.fullmatch(text) is not None


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of `data` in lower-case hexadecimal: the name of a blob."""
    return hashlib.sha256(data).hexdigest()


def model_key(model: str) -> str:
    """The level that stands for a model in topics: the first 16 digits of its hash."""
    return model[:MODEL_KEY_CHARS]
