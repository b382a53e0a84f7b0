"""Workers that failed, and are left alone for a while."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Entry:
    reason: str
    until: float
    full: str
    """The node whose full disk was the cause."""


class Barred:
    """Why each of them is left out: for `seconds` after its failure, or until the disk that caused it has room."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: dict[str, _Entry] = {}

    def add(self, nodes: Iterable[str], reason: str, now: float, *, full: str = "") -> None:
        """Leave these out from now on; `full` names the node whose disk is full, if that is why."""
        self._entries |= dict.fromkeys(nodes, _Entry(reason, now + self._seconds, full))

    def reasons(self, now: float, full: Collection[str] = ()) -> dict[str, str]:
        """Those still left out, and why; `full` are the nodes whose disk is full now."""
        self._entries = {
            node: entry
            for node, entry in self._entries.items()
            if entry.until > now and (not entry.full or entry.full in full)
        }
        return {node: entry.reason for node, entry in self._entries.items()}
