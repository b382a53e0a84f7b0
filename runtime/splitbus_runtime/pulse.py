"""What the loops of a process are at, and since when: a loop that does not come round in its time is stuck.

A thread that hangs in a native call can say nothing any more; others see here that it began and did not end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

LONG_SECONDS: Final = 300.0
"""For what may take long without harm: loading slices over a slow link, timing a model."""


class Pulse:
    """The sign of life of one loop. Begin, end and look from any thread; times are monotonic seconds."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._at: tuple[object, float] | None = None

    def working(self, what: object) -> AbstractContextManager[None]:
        """What is done in here has to end within the limit, or to come `on`; `what` is shown as it prints."""
        self._at = (what, self._clock())
        return self

    def __enter__(self) -> None:
        """Begun by `working`; a class of its own takes a third of what a generator does, for every frame."""

    def __exit__(self, *_: object) -> None:
        self._at = None

    def on(self) -> None:
        """The work goes on: its time begins anew."""
        if (at := self._at) is not None:
            self._at = (at[0], self._clock())

    def busy_s(self, now: float) -> float:
        """How long it has been at the same work; 0 when it waits for some."""
        at = self._at
        return max(0.0, now - at[1]) if at else 0.0

    def stuck(self, now: float) -> str | None:
        """What it hangs in, in a sentence; None when it does not."""
        at = self._at
        if at is None or now - at[1] <= self.limit_s:
            return None
        return f"{at[0]} has been under way for {now - at[1]:.0f} s, {self.limit_s:g} s are allowed"


class Pulses:
    """All loops of a process, by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pulses: dict[str, Pulse] = {}

    def add(self, name: str, limit_s: float) -> Pulse:
        """A loop that is watched from now on."""
        with self._lock:
            pulse = self._pulses[name] = Pulse(limit_s, self._clock)
        return pulse

    def stuck(self, now: float) -> list[str]:
        """What hangs, a sentence each."""
        with self._lock:
            return [why for pulse in self._pulses.values() if (why := pulse.stuck(now))]

    def busy_s(self, now: float) -> dict[str, float]:
        """How long each loop that is at work has been at it, by its name."""
        with self._lock:
            return {name: busy for name, pulse in self._pulses.items() if (busy := pulse.busy_s(now))}
