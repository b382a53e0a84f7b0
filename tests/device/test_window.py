"""The bounded window: newest wins, nothing is lost without being told."""

from __future__ import annotations

import threading
import time

import pytest

from splitbus_device.window import Window


class Recorder:
    """Work that waits until it is let go."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.done: list[int] = []
        self.dropped: list[int] = []

    def work(self, item: int) -> None:
        self.gate.wait(5)
        self.done.append(item)

    def window(self, size: int) -> Window[int]:
        return Window(size, name="test", work=self.work, drop=self.dropped.append)


def test_newest_wins_and_every_item_ends_once() -> None:
    recorder = Recorder()
    window = recorder.window(2)
    for item in range(10):
        window.submit(item)
        time.sleep(0.01)  # lets the threads take the first two
    recorder.gate.set()
    window.close()
    assert sorted(recorder.done + recorder.dropped) == list(range(10))
    assert {8, 9} <= set(recorder.done)
    assert len(recorder.done) == 4


def test_a_patient_submit_waits_instead() -> None:
    recorder = Recorder()
    window = recorder.window(1)
    recorder.gate.set()
    for item in range(50):
        window.submit(item, patient=True)
    window.close()
    assert recorder.done == list(range(50))
    assert recorder.dropped == []


def test_close_finishes_what_waits_and_takes_nothing_more() -> None:
    recorder = Recorder()
    window = recorder.window(3)
    for item in range(3):
        window.submit(item)
    recorder.gate.set()
    window.close()
    assert sorted(recorder.done) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="closed"):
        window.submit(4)


def test_a_burst_is_worked_on_by_all_threads() -> None:
    """Two items that come before an idle thread has woken up need two threads."""
    meeting = threading.Barrier(3)

    def work(_: int) -> None:
        meeting.wait(5)

    window: Window[int] = Window(3, name="test", work=work, drop=lambda _: None)
    window.submit(0)
    for item in (1, 2):
        window.submit(item)
    window.close()
    assert not meeting.broken


def test_whoever_waits_for_room_is_told_when_the_window_closes() -> None:
    recorder = Recorder()
    window = recorder.window(1)
    told: list[str] = []

    def wait() -> None:
        try:
            for item in range(4):
                window.submit(item, patient=True)
        except RuntimeError as error:
            told.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    threading.Timer(0.1, recorder.gate.set).start()
    window.close()
    waiting.join(5)
    assert told == ["the session is closed"]


def test_only_what_is_perishable_is_pushed_out() -> None:
    """Even items must stay; of a newcomer among them alone there is no room, and it is dropped itself."""
    recorder = Recorder()
    window: Window[int] = Window(
        2, name="test", work=recorder.work, drop=recorder.dropped.append, perishable=lambda item: item % 2 == 1
    )
    for item in (0, 2):
        window.submit(item)
    time.sleep(0.05)  # the threads take these
    for item in (4, 1):
        window.submit(item)
    assert recorder.dropped == []
    window.submit(3)
    assert recorder.dropped == [1]
    waiting = threading.Thread(target=lambda: window.submit(6, patient=True))
    waiting.start()
    time.sleep(0.05)
    recorder.gate.set()
    waiting.join()
    window.close()
    assert recorder.dropped == [1]
    assert sorted(recorder.done) == [0, 2, 3, 4, 6]


def test_a_newcomer_finds_no_room_among_what_must_stay() -> None:
    recorder = Recorder()
    window: Window[int] = Window(
        1, name="test", work=recorder.work, drop=recorder.dropped.append, perishable=lambda item: item % 2 == 1
    )
    window.submit(0)
    time.sleep(0.05)
    window.submit(2)
    window.submit(1)
    assert recorder.dropped == [1]
    recorder.gate.set()
    window.close()
    assert recorder.done == [0, 2]
