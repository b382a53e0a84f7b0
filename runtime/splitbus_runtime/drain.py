"""Whether what we sent still moves: a slow link takes long to answer a ping, a dead one never does. Pure."""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 2.0
"""A backlog that moved so lately is reason to wait for the answer behind it."""

LOOK_S: Final = 0.1
"""Often enough to see a backlog move, and seldom beside the frames of a busy connection."""


class Drain:
    """The backlog of one connection, in bytes that the peer has not acknowledged, looked at now and then."""

    def __init__(self) -> None:
        self._left = 0
        self._moved_at = self._looked_at = float("-inf")

    def is_due(self, now: float) -> bool:
        """Whether to look now; looking costs a call to the kernel."""
        if now - self._looked_at < LOOK_S:
            return False
        self._looked_at = now
        return True

    def moves(self, left: int, now: float) -> bool:
        """Whether a backlog of now `left` bytes is being taken by the peer; one that is taken at once is none."""
        if 0 < left < self._left:
            self._moved_at = now
        self._left = left
        return now - self._moved_at < PATIENCE_S
