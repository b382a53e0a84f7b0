"""Numbers are new once, whatever their order; frames in clear are remembered for a while, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.packets import FRAME, job

from splitbus_runtime.replays import WINDOW, RecentFrames, ReplayWindow

NUMBERS = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 4 * WINDOW), st.integers(0, 2**63 - 1)), max_size=200)


@given(NUMBERS)
def test_no_number_is_taken_twice_and_what_is_near_the_highest_always_once(numbers: list[int]) -> None:
    window, taken = ReplayWindow(), set[int]()
    for number in numbers:
        expected = number not in taken and number > max(taken, default=-1) - WINDOW
        assert window.is_new(number) == expected
        assert window.take(number) == expected
        if expected:
            taken.add(number)


def test_looking_at_a_number_does_not_take_it() -> None:
    window = ReplayWindow()
    assert window.is_new(7)
    assert window.is_new(7)
    assert window.take(7)
    assert not window.is_new(7)


def test_a_frame_in_clear_runs_once_for_each_attempt_stage_and_slice() -> None:
    recent, sent = RecentFrames(), job(())
    assert not recent.ran(sent)
    recent.note(sent)
    assert recent.ran(sent)
    assert not recent.ran(replace(sent, attempt=1))  # hedged, or sent again
    assert not recent.ran(replace(sent, route=sent.route[1:]))  # back from another worker
    assert not recent.ran(replace(sent, route=(replace(sent.route[0], slice=sent.route[1].slice), sent.route[1])))
    assert not recent.ran(replace(sent, frame=replace(FRAME, boot="other")))


def test_the_memory_of_frames_is_bounded_and_forgets_the_oldest() -> None:
    recent = RecentFrames(limit=3)
    frames = [replace(job(()), frame=replace(FRAME, seq=seq)) for seq in range(4)]
    for sent in frames:
        recent.note(sent)
    assert [recent.ran(sent) for sent in frames] == [False, True, True, True]
