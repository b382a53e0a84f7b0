"""The pace of a link, without clock or socket: when a piece of data has been sent, and when it arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from splitbus_schemas.errors import ConfigError

PIECE_SECONDS: Final = 0.0005
"""A line sends pieces of this length: short beside any delay of interest, long beside a wake-up of a process."""
MIN_PIECE: Final = 1448
"""Bytes: the payload of an Ethernet packet."""
MAX_PIECE: Final = 16384
"""Bytes: a quarter of the backlog."""
MAX_BACKLOG_BYTES: Final = 64 * 1024
MAX_BACKLOG_SECONDS: Final = 0.05
"""What a line has taken and not sent yet; the smaller of the two holds."""
MAX_MBIT: Final = 1000.0
MAX_DELAY_MS: Final = 5000.0
"""Bytes under way are kept in memory: both limits together make 625 MB, and anything sensible far less."""


@dataclass(frozen=True)
class Link:
    """Megabits a second up (towards the upstream) and down, of payload, and the delay of one way."""

    up_mbit: float
    down_mbit: float
    delay_ms: float = 0.0

    def __post_init__(self) -> None:
        for name in ("up_mbit", "down_mbit"):
            if not 0 < getattr(self, name) <= MAX_MBIT:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a rate above 0 and up to {MAX_MBIT:.0f}")
        if not 0 <= self.delay_ms <= MAX_DELAY_MS:
            raise ConfigError(f"delay_ms is {self.delay_ms}: give a delay from 0 to {MAX_DELAY_MS:.0f}")


class Line:
    """One direction of a link, shared by all connections over it; times are seconds of any one clock."""

    def __init__(self, mbit: float, delay_ms: float) -> None:
        self._free_at = -math.inf
        self.carried = 0
        self.set(mbit, delay_ms)

    def set(self, mbit: float, delay_ms: float) -> None:
        """A new pace for whatever is sent from now on."""
        self._rate = mbit * 1e6 / 8
        self._delay = delay_ms / 1e3
        self._backlog = min(MAX_BACKLOG_SECONDS, MAX_BACKLOG_BYTES / self._rate)

    @property
    def delay(self) -> float:
        """Seconds from the end of sending to arrival."""
        return self._delay

    @property
    def piece(self) -> int:
        """Bytes to send at a time."""
        return int(min(max(self._rate * PIECE_SECONDS, MIN_PIECE), MAX_PIECE))

    @property
    def capacity(self) -> int:
        """Bytes that a full line holds, waiting and travelling."""
        return int(self._rate * (self._backlog + self._delay)) + self.piece

    def send(self, now: float, size: int) -> float:
        """Take a piece that is ready `now`; returns when its last byte arrives."""
        self._free_at = max(now, self._free_at) + size / self._rate
        self.carried += size
        return self._free_at + self._delay

    def wait(self, now: float) -> float:
        """Seconds until a further piece fits into the backlog; 0 or less when it does."""
        return self._free_at - now - max(self._backlog - self.piece / self._rate, 0.0)
