"""How busy the executors are: a share of the last second or so."""

from __future__ import annotations

import math
import threading
from typing import Final

WINDOW_SECONDS: Final = 1.0
"""What lies further back counts little: a planner that reads it every second sees the last one."""


class Occupancy:
    """Busy time of `lanes` executors, smoothed. The clock is passed in, in seconds; thread-safe."""

    def __init__(self, lanes: int, now: float) -> None:
        self._lanes = lanes
        self._lock = threading.Lock()
        self._running = 0
        self._busy_s = 0.0
        self._at = now
        self._read_at = now
        self._read_busy_s = 0.0
        self._share = 0.0

    def change(self, by: int, now: float) -> None:
        """One more lane works (+1), or one less (-1)."""
        with self._lock:
            self._advance(now)
            self._running += by

    def share(self, now: float) -> float:
        """From 0 to 1; read it about once a second."""
        with self._lock:
            self._advance(now)
            elapsed = now - self._read_at
            if elapsed > 0:
                newest = (self._busy_s - self._read_busy_s) / (elapsed * self._lanes)
                weight = 1 - math.exp(-elapsed / WINDOW_SECONDS)
                self._share += weight * (min(max(newest, 0.0), 1.0) - self._share)
                self._read_at, self._read_busy_s = now, self._busy_s
            return self._share

    def _advance(self, now: float) -> None:
        self._busy_s += self._running * max(0.0, now - self._at)
        self._at = max(self._at, now)
