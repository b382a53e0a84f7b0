"""Answers in the order of their frames, however they come back."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from splitbus_device.answer import Answer

Tell: TypeAlias = Callable[[Answer], None]
Submit: TypeAlias = Callable[[Any, Tell], None]

AHEAD: Final = 4
"""Windows of answers that a slow consumer may leave unread before the source is made to wait."""


_LEFT_OUT: Final = ("dropped", "known")

STOP_SECONDS: Final = 2.0
"""A source that gives nothing for so long is not waited for; its thread ends with its next frame."""


class _Slot:
    """A place in the order, filled later."""

    __slots__ = ("answer", "filled")

    def __init__(self) -> None:
        self.filled = threading.Event()
        self.answer: Answer | None = None

    def fill(self, answer: Answer) -> None:
        self.answer = answer
        self.filled.set()


def in_order(frames: Iterable[Any], submit: Submit, window: int) -> Iterator[Answer]:
    """Feed `frames` to `submit` from a thread of its own; yield the answers in order, without dropped and known frames.

    An error of the source is raised here, after the answers to the frames before it.
    """
    slots: queue.Queue[_Slot | BaseException | None] = queue.Queue(AHEAD * window)
    stop = threading.Event()

    def feed() -> None:
        end: BaseException | None = None
        try:
            for frame in frames:
                if stop.is_set():
                    break
                slot = _Slot()
                slots.put(slot)
                try:
                    submit(frame, slot.fill)
                except BaseException:
                    slot.filled.set()  # nobody else will
                    raise
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are read
            end = error
        slots.put(end)

    feeder = threading.Thread(target=feed, name="splitbus-stream", daemon=True)
    feeder.start()
    try:
        while isinstance(slot := slots.get(), _Slot):
            slot.filled.wait()
            if slot.answer is not None and slot.answer.outcome not in _LEFT_OUT:
                yield slot.answer
        if slot is not None:
            raise slot
    finally:
        stop.set()
        patience = time.monotonic() + STOP_SECONDS
        while feeder.is_alive() and time.monotonic() < patience:  # it may wait for room, or for the source
            with contextlib.suppress(queue.Empty):
                slots.get(timeout=0.02)
