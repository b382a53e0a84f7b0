"""Routes on which frames wait in vain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from splitbus_device.breaker import LIMIT, MAX_REST_S, OF_LATE, REST_S, SILENT_REST_S, Breaker

EDGE = ("edge1",)


def struck(times: int = LIMIT, nodes: tuple[str, ...] = EDGE, *, heard: float | None = None) -> Breaker:
    """A route that let frames wait at 0.0, 0.1, ...; `heard` is when the worker said something between."""
    breaker = Breaker()
    for number in range(times):
        assert breaker.strike(nodes, number / 10) == (number + 1 == LIMIT)
        if heard is not None:
            breaker.sound(nodes[0], heard)
    return breaker


def test_a_few_frames_in_a_row_make_it_rest() -> None:
    assert not struck(LIMIT - 1).rests(EDGE, 0.3)
    breaker = struck()
    assert breaker.rests(EDGE, 0.3)
    assert breaker.resting(0.3) == ["edge1"]
    assert not breaker.rests(("edge2",), 0.3)


def test_an_answer_in_time_now_and_then_does_not_begin_the_count_anew() -> None:
    breaker = struck(LIMIT - 1, heard=0.05)
    breaker.fine(EDGE)
    assert breaker.strike(EDGE, 0.3)
    assert breaker.rests(EDGE, 0.3)


def test_when_most_are_answered_in_time_it_does_not_rest() -> None:
    breaker = Breaker()
    for number in range(100):
        if number % 3:
            breaker.fine(EDGE)
        else:
            assert not breaker.strike(EDGE, number / 10)
        assert not breaker.rests(EDGE, number / 10)


def test_after_enough_answers_in_time_in_a_row_all_is_forgotten() -> None:
    breaker = struck(heard=0.15)
    now = 0.2 + REST_S
    for _ in range(OF_LATE):
        assert not breaker.sound("edge1", now - 0.7)
        breaker.fine(EDGE)
    assert not breaker.strike(EDGE, now)
    assert not breaker.sound("edge1", now + 0.05)
    assert not breaker.strike(EDGE, now + 0.1)
    assert breaker.strike(EDGE, now + 0.2)
    assert not breaker.sound("edge1", now + 1.0)
    assert not breaker.rests(EDGE, now + 0.2 + REST_S + 0.01), "the first rest, not the second"


def test_the_first_sound_of_one_that_was_silent_ends_it() -> None:
    breaker = struck()
    assert breaker.rests(EDGE, SILENT_REST_S)
    assert breaker.sound("edge1", 5.0)
    assert not breaker.rests(EDGE, 5.0)
    assert breaker.resting(5.0) == []
    assert not breaker.sound("edge1", 5.1)


def test_a_frame_that_waited_before_does_not_hide_that_it_is_silent() -> None:
    breaker = Breaker()
    assert not breaker.strike(EDGE, 0.0)
    assert not breaker.sound("edge1", 0.1), "that frame's own answer, somewhat late"
    breaker.fine(EDGE)
    assert not breaker.strike(EDGE, 0.3)
    assert breaker.strike(EDGE, 0.4)
    assert breaker.rests(EDGE, 0.4 + REST_S + 0.1), "no frame is sent to it to see"
    assert breaker.sound("edge1", 5.0)
    assert not breaker.rests(EDGE, 5.0)


def test_one_that_answers_too_late_is_not_silent() -> None:
    breaker = struck(heard=0.1)
    for now in (0.5, 1.3, 2.1):
        assert not breaker.sound("edge1", now)
    assert not breaker.rests(EDGE, 0.2 + REST_S + 0.01)


def test_one_that_talks_rests_for_a_time_and_longer_at_each_relapse() -> None:
    breaker = struck(heard=0.15)
    assert not breaker.sound("edge1", 0.4)
    now, rest = 0.2, REST_S
    while rest < MAX_REST_S:
        assert not any(breaker.sound("edge1", now + second) for second in range(1, int(rest))), "it talks all along"
        assert breaker.rests(EDGE, now + rest - 0.01)
        assert not breaker.rests(EDGE, now + rest + 0.01)
        now += rest + 0.5
        assert not breaker.sound("edge1", now - 0.1)
        assert breaker.strike(EDGE, now), "one more frame is enough"
        rest = min(2 * rest, MAX_REST_S)
    assert not breaker.sound("edge1", now + 1.0)
    assert breaker.rests(EDGE, now + MAX_REST_S - 0.01)


def test_a_silent_one_is_tried_in_the_end() -> None:
    assert not struck().rests(EDGE, SILENT_REST_S + 0.3)


def test_a_new_life_begins_with_a_clean_slate() -> None:
    breaker = struck()
    assert breaker.forget("edge1")
    assert not breaker.rests(EDGE, 0.3)
    assert not breaker.forget("edge1")
    assert not struck(LIMIT - 1).forget("edge1"), "nothing was at rest"


def test_of_a_longer_route_nobody_is_accused() -> None:
    route = ("edge1", "cloud1")
    breaker = struck(nodes=route)
    assert breaker.rests(route, 0.3)
    assert not breaker.rests(EDGE, 0.3)
    assert breaker.resting(0.3) == []
    assert not breaker.rests(route, REST_S + 0.3)
    assert breaker.forget("cloud1")


@given(st.lists(st.sampled_from(["strike", "fine", "sound", "forget"])))
def test_it_rests_only_after_enough_strikes_of_late(events: list[str]) -> None:
    breaker, latest = Breaker(), list[bool]()
    for number, event in enumerate(events):
        now = number * 0.001
        match event:
            case "strike":
                breaker.strike(EDGE, now)
            case "fine":
                breaker.fine(EDGE)
            case "sound":
                breaker.sound("edge1", now)
            case _:
                breaker.forget("edge1")
        latest = [] if event == "forget" else latest + [event == "strike"] * (event != "sound")
        enough = any(
            sum(latest[end - OF_LATE if end > OF_LATE else 0 : end]) >= LIMIT for end in range(len(latest) + 1)
        )
        assert not breaker.rests(EDGE, now) or enough
