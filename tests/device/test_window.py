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


def test_newest_wins_and_every_item_ends_once():
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


def test_a_patient_submit_waits_instead():
    recorder = Recorder()
    window = recorder.window(1)
    recorder.gate.set()
    for item in range(50):
        window.submit(item, patient=True)
    window.close()
    assert recorder.done == list(range(50))
    assert recorder.dropped == []


def test_close_finishes_what_waits_and_takes_nothing_more():
    recorder = Recorder()
    window = recorder.window(3)
    for item in range(3):
        window.submit(item)
    recorder.gate.set()
    window.close()
    assert sorted(recorder.done) == [0, 1, 2]
    with pytest.raises(RuntimeError, match="closed"):
        window.submit(4)
