"""A camera that takes pictures at a steady rate and keeps every answer that it gets."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.e2e.picture_model import TOLERANCES, Reference, one_thread, picture

from splitbus_device import Answer, InferenceSession

FPS = 12.0
DEADLINE_S = 0.5
SLOWDOWN = 60.0
"""The camera is so many times slower than this machine."""


class Camera:
    """Begins at once; `close` ends it. Frames are numbered from 0."""

    def __init__(self, session: InferenceSession, model: Path, fps: float = FPS) -> None:
        self.session = session
        self._reference = Reference(model)
        self._period = 1 / fps
        self._lock = threading.Lock()
        self._answers: dict[int, list[Answer]] = {}
        self._asked = 0
        self._checked = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-camera", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(max(0.0, begun + self._asked * self._period - time.monotonic())):
            index = self._asked
            self.session.submit({"x": picture(index)}, functools.partial(self._keep, index), live=False)
            self._asked += 1

    def _keep(self, index: int, answer: Answer) -> None:
        with self._lock:
            self._answers.setdefault(index, []).append(replace(answer, input=None))

    @property
    def asked(self) -> int:
        """How many frames were asked so far: the number of the next one."""
        return self._asked

    def answers(self, since: int = 0) -> list[tuple[int, Answer]]:
        """Frame number and answer, from frame `since` on, in the order of the frames."""
        with self._lock:
            return [(index, answer) for index in sorted(self._answers) if index >= since
                    for answer in self._answers[index]]  # fmt: skip

    def wait(self, what: str, probe: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not probe():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            time.sleep(0.02)

    def wait_frames(self, count: int) -> int:
        """Wait for so many more frames to be answered; the number of the first of them."""
        begun = self._asked
        self.wait(f"{count} frames", lambda: len(self.answers(begun)) >= count, 5 + 3 * count * self._period)
        return begun

    def check(self) -> None:
        """Every frame asked since the last check was answered once, and as plain onnxruntime answers it."""
        end = self._asked
        self.wait(f"frames up to {end} are answered", lambda: self._all_answered(end), 5)
        with self._lock:
            answered = {index: self._answers[index] for index in range(self._checked, end)}
        self._checked = end
        assert {index: len(answers) for index, answers in answered.items() if len(answers) != 1} == {}
        for index, (answer,) in answered.items():
            assert answer.outcome == "answered", f"frame {index}: {answer.outcome}, {answer.reason}"
            allowed = max((TOLERANCES[codec] for codec in answer.codecs), default=1e-6)
            difference = self._reference.difference(index, answer.outputs)
            assert difference <= allowed, f"frame {index} is off by {difference:.2g}: {answer.codecs}, {answer.route}"

    def _all_answered(self, end: int) -> bool:
        with self._lock:
            return all(index in self._answers for index in range(self._checked, end))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.session.close()


def open_slow(model: str | Path, *, broker: str, site: str, device: str, store: Path) -> InferenceSession:
    """The session of a slow camera."""
    return InferenceSession(
        model, one_thread(), broker=broker, site=site, device=device, store=store, deadline=DEADLINE_S,
        slowdown=SLOWDOWN,
    )  # fmt: skip


def ask(session: InferenceSession, pixels: object) -> Answer:
    """One frame, and how it was answered."""
    session.run(None, {"x": pixels})
    answer = session.last_answer
    assert answer is not None
    return answer
