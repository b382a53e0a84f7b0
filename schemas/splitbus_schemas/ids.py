"""Names that stand in topics: sites, nodes, models, boots; and content hashes."""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Final

from splitbus_schemas.errors import ConfigError
from splitbus_schemas.limits import MAX_ID_BYTES

_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA256_CHARS: Final = 64

MODEL_KEY_CHARS = 16

_REMEMBERED: Final = 1024
"""Names that were looked at: a frame's are those of the frame before."""


def is_id(text: str) -> bool:
    """Whether `text` may stand as one level of a topic: [a-z0-9_-], not empty, at most 64 bytes."""
    return len(text) <= MAX_ID_BYTES and _is_id(text)


def check_id(what: str, text: str) -> str:
    """`text`, when it may stand in a topic; ConfigError naming `what` otherwise."""
    if not is_id(text):
        raise ConfigError(
            f"{what} {text!r} cannot stand in a topic: use a-z, 0-9, '-' and '_', at most {MAX_ID_BYTES} characters"
        )
    return text


def is_sha256(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hexadecimal."""
    return len(text) == _SHA256_CHARS and _is_sha256(text)


@functools.lru_cache(_REMEMBERED)
def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


@functools.lru_cache(_REMEMBERED)
def _is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def sha256(data: bytes | memoryview) -> str:
    """The SHA-256 of `data` in lower-case hexadecimal: the name of a blob."""
    return hashlib.sha256(data).hexdigest()


def model_key(model: str) -> str:
    """The level that stands for a model in topics: the first 16 digits of its hash."""
    return model[:MODEL_KEY_CHARS]
