"""The line: bounded, fair, newest wins per device, and its sums stay true."""

from __future__ import annotations

import threading
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.worker.test_admission import JOB

from splitbus_runtime.shelf import Slice
from splitbus_schemas.packet_types import FrameId
from splitbus_worker.line import Line, Ticket


def ticket(device: str, seq: int, expected_us: int = 10) -> Ticket:
    piece: Slice = None  # type: ignore[assignment]  # the line never looks at it
    return Ticket(replace(JOB, frame=FrameId(device, "b1", seq)), piece, 0.0, 0, 0, expected_us)


def test_first_come_first_served() -> None:
    line = Line(limit=3, per_device=3)
    tickets = [ticket("a", 1), ticket("b", 1), ticket("a", 2)]
    assert [line.join(each) for each in tickets] == [None] * 3
    assert [line.take() for _ in tickets] == tickets


def test_a_devices_newest_replaces_its_oldest() -> None:
    line = Line(limit=8, per_device=2)
    a1, b1, a2, a3 = ticket("a", 1), ticket("b", 1), ticket("a", 2), ticket("a", 3)
    assert [line.join(each) for each in (a1, b1, a2)] == [None] * 3
    assert line.join(a3) is a1
    assert [line.take() for _ in range(3)] == [b1, a2, a3]


def test_in_a_full_line_a_device_replaces_its_own() -> None:
    line = Line(limit=2, per_device=8)
    a1, b1, a2 = ticket("a", 1), ticket("b", 1), ticket("a", 2)
    line.join(a1)
    line.join(b1)
    assert line.join(a2) is a1
    assert len(line) == 2


def test_what_runs_is_ahead_until_it_is_done() -> None:
    line = Line(limit=4, per_device=4)
    line.join(ticket("a", 1, expected_us=30))
    line.join(ticket("a", 2, expected_us=40))
    taken = line.take()
    assert taken is not None
    assert (line.running, len(line), line.ahead_us) == (1, 1, 70)
    line.done(taken)
    assert (line.running, len(line), line.ahead_us) == (0, 1, 40)


def test_close_sends_waiting_takers_home() -> None:
    line = Line(limit=4, per_device=4)
    got: list[Ticket | None] = []
    takers = [threading.Thread(target=lambda: got.append(line.take())) for _ in range(3)]
    for taker in takers:
        taker.start()
    assert line.close(3) == []
    for taker in takers:
        taker.join(5)
    assert got == [None] * 3


def test_close_gives_back_what_waits() -> None:
    line = Line(limit=4, per_device=4)
    line.join(ticket("a", 1))
    assert [left.job.frame.seq for left in line.close(1)] == [1]
    assert line.take() is None
    assert (len(line), line.ahead_us, line.of_device("a")) == (0, 0, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 6), st.integers(1, 6))
def test_nothing_is_lost_and_the_sums_are_true(steps: list[tuple[str, bool]], limit: int, per_device: int) -> None:
    line = Line(limit=limit, per_device=per_device)
    joined, left = 0, 0
    for seq, (device, take) in enumerate(steps):
        if take and len(line):
            taken = line.take()
            assert taken is not None
            line.done(taken)
            left += 1
        elif len(line) < limit or line.of_device(device):  # what admission lets through
            left += line.join(ticket(device, seq)) is not None
            joined += 1
        assert len(line) <= limit
        assert line.of_device(device) <= per_device
        assert line.ahead_us == 10 * len(line)
    assert joined == left + len(line.close(0))


def test_devices_take_turns() -> None:
    """One that fills the line delays another by a frame, not by all that it has waiting."""
    line = Line(limit=8, per_device=4)
    flood = [ticket("bad", seq) for seq in range(1, 5)]
    for each in flood[:3]:
        line.join(each)
    assert line.take() is flood[0]
    good = ticket("good", 1)
    line.join(flood[3])
    assert line.ahead_of("good") == 20, "what runs, and one turn of the other"
    assert line.ahead_of("bad") == 40
    line.join(good)
    assert line.take() is good
    assert [line.take() for _ in range(3)] == flood[1:]
