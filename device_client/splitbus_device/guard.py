"""Asks the un-split model about a few of the frames that a lossy codec carried, so that its promise is watched."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from splitbus_runtime.engine import Array, Session
from splitbus_runtime.sameness import same_answer

log = logging.getLogger(__name__)

BUSY_SHARE: Final = 0.02
"""Of the device's time, at most so much goes into asking twice: a run that takes 200 ms is made every 10 s."""

LEAST_SECONDS: Final = 1.0
"""A fast device need not ask more often either."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Under one plan: frames asked twice, and those whose answers said the same."""

    plan: str = ""
    epoch: int = 0
    checked: int = 0
    agreed: int = 0

    def with_one(self, plan: str, epoch: int, *, agreed: bool) -> Checked:
        """With one more frame; another plan begins at nothing."""
        if (plan, epoch) != (self.plan, self.epoch):
            return Checked(plan, epoch, 1, int(agreed))
        return Checked(plan, epoch, self.checked + 1, self.agreed + int(agreed))


def next_turn(now: float, run_s: float) -> float:
    """When the next frame may be asked twice, after a run of the un-split model that took `run_s`. Pure."""
    return now + max(run_s / BUSY_SHARE, LEAST_SECONDS)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A frame and what the bus answered, copied: the caller may do with its own what it likes."""

    plan: str
    epoch: int
    names: list[str]
    feeds: dict[str, Array]
    outputs: list[Array]


class Guard:
    """One session's. `consider` may be called from several threads and never waits; the run is made on its own."""

    def __init__(self, session: Session, *, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()
        self._checked = Checked()
        self._pairs: queue.SimpleQueue[_Pair | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def checked(self) -> Checked:
        """What was found under the latest plan that was checked."""
        return self._checked

    def consider(
        self, plan: str, epoch: int, names: Sequence[str], feeds: Mapping[str, Array], outputs: Sequence[Array]
    ) -> None:
        """A frame that a lossy codec carried, and its answer; most are let pass."""
        with self._lock:
            if self._closed or self._clock() < self._free_at:
                return
            self._free_at = float("inf")  # until this one is done
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        copied = {name: np.array(value) for name, value in feeds.items()}
        self._pairs.put(_Pair(plan, epoch, list(names), copied, [np.array(output) for output in outputs]))

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._pairs.put(None)
        if thread is not None:
            thread.join(5)

    def _run(self) -> None:
        while (pair := self._pairs.get()) is not None:
            began = self._clock()
            try:
                expected = self._session.run(pair.feeds, pair.names)
                agreed = same_answer(expected, pair.outputs)
                self._checked = self._checked.with_one(pair.plan, pair.epoch, agreed=agreed)
            except Exception:
                log.exception("a frame could not be asked twice")
            ended = self._clock()
            with self._lock:
                self._free_at = next_turn(ended, ended - began)
