"""Whether what we sent still moves: a slow link takes long to answer a ping, a dead one never does. Pure."""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 2.0
"""A backlog that moved so lately is reason to wait for the answer behind it."""


class Drain:
    """The backlog of one connection, in bytes that the peer has not acknowledged, looked at now and then."""

    def __init__(self) -> None:
        self._left = 0
        self._moved_at = float("-inf")

    def moves(self, left: int, now: float) -> bool:
        """Whether a backlog of now `left` bytes is being taken by the peer; one that is taken at once is none."""
        if 0 < left < self._left:
            self._moved_at = now
        self._left = left
        return now - self._moved_at < PATIENCE_S
