"""Keeps passwords and keys out of what is shown: logs, status lines, alerts, error messages.

Two nets, for either may have a hole: values that this program has read as secrets, and text that looks like one.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "***"

MIN_CHARS: Final = 4
"""A shorter secret would hide half of every sentence; a longer one is hidden where it stands as a word of its own."""

_PATTERNS: Final = (
    (re.compile(r"(?<=://)[^/\s@'\"]+@"), f"{HIDDEN}@"),
    (
        re.compile(
            r"(?i)\b((?:[a-z0-9_.-]*(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key))"
            r"['\"]?\s*[=:]\s*['\"]?)(?!\s)[^\s'\"&,;)]+"
        ),
        rf"\g<1>{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9+/._~-]{8,}=*"), rf"\g<1> {HIDDEN}"),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        f"{HIDDEN} a private key {HIDDEN}",
    ),
)


class Secrets:
    """Values that are never to be shown. Only grows: what was a secret once stays one."""

    def __init__(self) -> None:
        self._values: frozenset[str] = frozenset()
        self._known: tuple[re.Pattern[str], ...] = ()

    def keep(self, secret: str | None) -> str | None:
        """Hide this value from now on, also as it stands in URLs; gives it back."""
        if secret and len(secret) >= MIN_CHARS:
            self._values |= {secret, quote(secret, safe="")}
            longest_first = sorted(self._values, key=len, reverse=True)
            self._known = tuple(
                re.compile(rf"(?<![a-zA-Z0-9]){re.escape(one)}(?![a-zA-Z0-9])") for one in longest_first
            )
        return secret

    def hide(self, text: str) -> str:
        """The text without what is known or looks like a secret."""
        for form in self._known:
            text = form.sub(HIDDEN, text)
        for pattern, shown in _PATTERNS:
            text = pattern.sub(shown, text)
        return text


SECRETS: Final = Secrets()
"""Those of this process."""


def redacted(text: str) -> str:
    """The text as it may be shown."""
    return SECRETS.hide(text)
