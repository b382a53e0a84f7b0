"""Workers that failed, and are left alone for a while."""

from __future__ import annotations

from collections.abc import Iterable


class Barred:
    """Why each of them is left out, for `seconds` after its failure."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: dict[str, tuple[str, float]] = {}

    def add(self, nodes: Iterable[str], reason: str, now: float) -> None:
        """Leave these out from now on."""
        self._entries |= dict.fromkeys(nodes, (reason, now + self._seconds))

    def reasons(self, now: float) -> dict[str, str]:
        """Those still left out, and why."""
        self._entries = {node: entry for node, entry in self._entries.items() if entry[1] > now}
        return {node: reason for node, (reason, _) in self._entries.items()}
