"""Runs a warm slice for a moment when its pace is in doubt and nothing else runs, and says when the pace changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from splitbus_runtime.profiler import sample
from splitbus_runtime.pulse import Pulse
from splitbus_runtime.shelf import Shelf, Slice
from splitbus_worker.pace import Pace

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.05


class Trials:
    """The pace of a worker's runs. `idle` says that no frame runs or waits; `tell` is called at each other factor."""

    def __init__(
        self, shelf: Shelf, *, idle: Callable[[], bool], tell: Callable[[], None], pulse: Pulse, name: str
    ) -> None:
        self.pace = Pace()
        self._shelf, self._idle, self._tell, self._pulse = shelf, idle, tell, pulse
        self._lock = threading.Lock()
        self._slice: Slice | None = None
        """What ran last; while the worker is slow, what showed it, though the shelf may have dropped it."""
        self._untried: set[str] = set()
        """Slices that cannot be run on made-up tensors."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Try slices from now on."""
        self._thread.start()

    def close(self) -> None:
        """Try no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def ran(self, piece: Slice, us: int) -> None:
        """A frame ran on that slice for so long; any thread."""
        if piece.id in self._untried:
            return
        with self._lock:
            if self.pace.factor is None or self._slice is None:
                self._slice = piece
            changed = self.pace.note_run(piece.id, us, time.monotonic())
        if changed:
            self._tell()

    def _loop(self) -> None:
        while not self._closing.wait(TICK_SECONDS):
            piece = self._needed()
            if piece is not None and self._idle() and self.pace.is_due(piece.id, time.monotonic()):
                with self._pulse.working(f"a trial of slice {piece.id[:12]}"):
                    self._try(piece)

    def _needed(self) -> Slice | None:
        """What to try; what the shelf has dropped is let go, unless it is to show that the worker is well."""
        with self._lock:
            if self._slice is not None and self.pace.factor is None and self._slice.id not in self._shelf.ready:
                self._slice = None
            return self._slice

    def _try(self, piece: Slice) -> None:
        runs, done = self.pace.trial_runs(piece.id), 0
        try:
            feeds = {spec.name: sample(spec) for spec in piece.manifest.inputs}
            began = time.perf_counter()
            while done < runs and (not done or self._idle()) and not self._closing.is_set():
                piece.run(feeds)
                done += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, frames alone tell how it does, and the thread goes on
            log.info("slice %s cannot be tried: %s", piece.id[:12], error)
            self._untried.add(piece.id)
            self._slice, changed = None, self.pace.give_up(time.monotonic())
        else:
            us = (time.perf_counter() - began) * 1e6 / max(done, 1)
            with self._lock:
                changed = done > 0 and self.pace.note_trial(piece.id, us, time.monotonic())
                self._slice = piece if changed else self._slice
        if changed:
            self._tell()
