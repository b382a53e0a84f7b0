"""Loads slices that jobs ask for and that the gateway has not ordered, one after the other, in the background."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from splitbus_runtime.pulse import Pulse
from splitbus_runtime.shelf import Shelf
from splitbus_schemas.errors import SplitbusError

MAX_WANTED: Final = 8
"""Slices waiting to be loaded; a job for yet another is refused like the rest, and asks again by coming again."""

FORGET_SECONDS: Final = 10.0
"""A slice that could not be loaded is not tried again for so long."""

MAX_FAILED: Final = 64
"""Failures remembered; a hostile job may name any hash."""


class Loader:
    """A thread that loads slices; `report(None | error)` is called on it after each."""

    def __init__(
        self, shelf: Shelf, report: Callable[[SplitbusError | None], None], *, name: str, pulse: Pulse
    ) -> None:
        self._shelf = shelf
        self._pulse = pulse
        self._report = report
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        self._failed: dict[str, tuple[str, float]] = {}
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def want(self, slice_id: str) -> str:
        """Load the slice in the background; says how it stands."""
        with self._lock:
            why, until = self._failed.get(slice_id, ("", 0.0))
            if time.monotonic() < until:
                return f"it could not be loaded: {why}"
            if slice_id in self._wanted:
                return "it is being loaded"
            if len(self._wanted) >= MAX_WANTED:
                return f"{MAX_WANTED} others are being loaded"
            self._wanted.add(slice_id)
        self._queue.put(slice_id)
        return "it is being loaded from now on"

    def close(self) -> None:
        """End the thread; downloads must have been ended before."""
        with self._lock:
            self._wanted.clear()
        self._queue.put(None)
        self._thread.join(5)

    def _run(self) -> None:
        while (slice_id := self._queue.get()) is not None:
            if slice_id in self._wanted:
                with self._pulse.working(f"loading slice {slice_id[:12]}"):
                    self._load(slice_id)

    def _load(self, slice_id: str) -> None:
        problem: SplitbusError | None = None
        try:
            self._shelf.load(slice_id)
        except SplitbusError as error:
            problem = error
        with self._lock:
            self._wanted.discard(slice_id)
            self._failed.pop(slice_id, None)
            if problem is not None:
                self._failed[slice_id] = (str(problem), time.monotonic() + FORGET_SECONDS)
            while len(self._failed) > MAX_FAILED:
                del self._failed[next(iter(self._failed))]
        self._report(problem)
