"""Answers in the order of their frames."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from splitbus_device.answer import Answer, Outcome
from splitbus_device.ordered import in_order


def answer(frame: int, outcome: Outcome = "answered") -> Answer:
    return Answer(outputs=[frame], route=("cam",), plan="", epoch=0, frame="", total_ms=0.0, outcome=outcome)


def shuffled(frame: int, tell: Callable[[Answer], None]) -> None:
    threading.Timer(random.random() * 0.01, tell, [answer(frame)]).start()


def test_answers_come_in_order_however_they_arrive() -> None:
    assert [a.outputs[0] for a in in_order(range(40), shuffled, 4)] == list(range(40))


def test_dropped_frames_are_left_out() -> None:
    def submit(frame: int, tell: Callable[[Answer], None]) -> None:
        tell(answer(frame, "dropped" if frame % 3 else "answered"))

    assert [a.outputs[0] for a in in_order(range(10), submit, 4)] == [0, 3, 6, 9]


def test_an_error_of_the_camera_comes_after_the_answers_before_it() -> None:
    def camera() -> Iterator[int]:
        yield 0
        yield 1
        raise OSError("the camera was unplugged")

    answers = in_order(camera(), shuffled, 4)
    assert [next(answers).outputs[0], next(answers).outputs[0]] == [0, 1]
    with pytest.raises(OSError, match="unplugged"):
        next(answers)


def test_a_consumer_that_stops_early_ends_the_source_too() -> None:
    pulled: list[int] = []

    def camera() -> Iterator[int]:
        for frame in range(10_000):
            pulled.append(frame)
            time.sleep(0.001)
            yield frame

    def submit(frame: Any, tell: Callable[[Answer], None]) -> None:
        tell(answer(frame))

    for got in in_order(camera(), submit, 2):
        if got.outputs[0] == 5:
            break
    before = len(pulled)
    time.sleep(0.05)
    assert len(pulled) <= before + 1


def test_a_frame_that_is_not_taken_ends_the_stream_with_its_error() -> None:
    def submit(frame: Any, tell: Callable[[Answer], None]) -> None:
        if frame == 2:
            raise RuntimeError("the session is closed")
        tell(answer(frame))

    answers = in_order(range(5), submit, 4)
    assert [next(answers).outputs[0], next(answers).outputs[0]] == [0, 1]
    with pytest.raises(RuntimeError, match="closed"):
        next(answers)


def test_a_source_that_gives_nothing_more_does_not_hold_its_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitbus_device.ordered.STOP_SECONDS", 0.2)
    unplugged = threading.Event()

    def camera() -> Iterator[int]:
        yield 0
        unplugged.wait(10)

    def submit(frame: Any, tell: Callable[[Answer], None]) -> None:
        tell(answer(frame))

    answers = in_order(camera(), submit, 2)
    next(answers)
    begun = time.monotonic()
    answers.close()  # type: ignore[attr-defined]  # a generator, which Iterator does not say
    assert time.monotonic() - begun < 1
    unplugged.set()
