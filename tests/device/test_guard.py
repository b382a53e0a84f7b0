"""The guard asks twice rarely, compares what counts, and never holds a frame up."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import models

from splitbus_device.guard import BUSY_SHARE, LEAST_SECONDS, Checked, Guard, next_turn
from splitbus_runtime.engine import Array, Session, open_session


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return open_session(models.save(models.chain(), tmp_path), threads=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(session: Session, clock: Clock) -> Any:
    guard = Guard(session, name="guard", clock=clock)
    yield guard
    guard.close()


def frame(session: Session, seed: int = 0) -> tuple[list[str], dict[str, Array], list[Array]]:
    (spec,) = session.inputs
    sizes = [size if isinstance(size, int) else 1 for size in spec.shape]
    feeds = {spec.name: np.random.default_rng(seed).random(sizes, dtype=np.float32)}
    return [info.name for info in session.outputs], feeds, session.run(feeds)


def wait_checked(guard: Guard, count: int) -> Checked:
    deadline = time.monotonic() + 5
    while guard.checked.checked < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return guard.checked


def test_a_good_and_a_bad_answer(guard: Guard, session: Session, clock: Clock) -> None:
    names, feeds, outputs = frame(session)
    guard.consider("p1", 1, names, feeds, outputs)
    assert wait_checked(guard, 1) == Checked("p1", 1, 1, 1)
    clock.now += LEAST_SECONDS
    guard.consider("p1", 1, names, feeds, [-output for output in outputs])
    assert wait_checked(guard, 2) == Checked("p1", 1, 2, 1)


def test_another_plan_begins_at_nothing(guard: Guard, session: Session, clock: Clock) -> None:
    names, feeds, outputs = frame(session)
    guard.consider("p1", 1, names, feeds, outputs)
    wait_checked(guard, 1)
    clock.now += LEAST_SECONDS
    guard.consider("p2", 2, names, feeds, outputs)
    while guard.checked.plan != "p2":
        time.sleep(0.005)
    assert guard.checked == Checked("p2", 2, 1, 1)


def test_most_frames_pass(guard: Guard, session: Session) -> None:
    names, feeds, outputs = frame(session)
    for _ in range(100):
        guard.consider("p1", 1, names, feeds, outputs)
    assert wait_checked(guard, 1).checked == 1


def test_what_the_caller_does_with_its_own_changes_nothing(guard: Guard, session: Session) -> None:
    names, feeds, outputs = frame(session)
    guard.consider("p1", 1, names, feeds, outputs)
    for array in (*feeds.values(), *outputs):
        array[...] = 0
    assert wait_checked(guard, 1).agreed == 1


def test_a_frame_that_cannot_be_run_is_no_end(guard: Guard, session: Session, clock: Clock) -> None:
    names, feeds, outputs = frame(session)
    guard.consider("p1", 1, names, {}, outputs)
    deadline = time.monotonic() + 5
    while guard.checked.checked == 0:
        assert time.monotonic() < deadline
        clock.now += LEAST_SECONDS
        guard.consider("p1", 1, names, feeds, outputs)
        time.sleep(0.005)
    assert guard.checked == Checked("p1", 1, 1, 1)


def test_a_closed_guard_takes_nothing(session: Session) -> None:
    guard = Guard(session, name="guard")
    guard.close()
    guard.consider("p1", 1, *frame(session))
    assert guard.checked.checked == 0
    assert not any(thread.name == "guard" for thread in threading.enumerate())


@given(st.floats(0, 1e6), st.floats(0, 100))
def test_the_share_of_time_is_kept(now: float, run_s: float) -> None:
    wait = next_turn(now, run_s) - now
    assert run_s <= wait * BUSY_SHARE + 1e-3
    assert wait >= LEAST_SECONDS - 1e-3
