"""Numbers and foreign text as people read them at a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB")


def size(count: float) -> str:
    """Bytes in decimal units: 900 B, 12.3 kB."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_UNITS[unit]}"


def milliseconds(value: float | None) -> str:
    """Three digits at most; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def rate(mbit: float | None) -> str:
    """A goodput in Mbit/s; a dash for nothing."""
    return "-" if mbit is None else f"{mbit:.1f}" if mbit < 100 else f"{mbit:.0f}"


def percent(share: float) -> str:
    return f"{share:.0%}"


def shape(sizes: Iterable[int | str | None]) -> str:
    """1x3x224x224; `?` where a size is not known."""
    return "x".join("?" if n is None else str(n) for n in sizes) or "scalar"


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey; what was there is shown escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
