"""Frames that are out: whose answer is whose, and how many may be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_device.flights import CREDIT_SECONDS, Flights, Out
from splitbus_runtime.transport import Parcel
from splitbus_schemas.packet_types import FrameId, Refusal, Result


def result(seq: int, attempt: int = 1) -> Parcel:
    return Parcel("t", Result(FrameId("cam", "b", seq), "p1", 1, attempt, ()), 1.0, 10, 0, 0.0)


def refusal(seq: int, attempt: int = 1) -> Parcel:
    return Parcel("t", Refusal(FrameId("cam", "b", seq), "p1", 1, attempt, "edge1", "busy"), 1.0, 10, 0, 0.0)


def begun(flights: Flights, seq: int, now: float = 0.0) -> Out:
    out = flights.begin(seq, now)
    assert out is not None
    return out


def sent(flights: Flights, seq: int, nodes: tuple[str, ...] = ("edge1",), now: float = 0.0) -> Out:
    out = begun(flights, seq, now)
    flights.sending(out, nodes, now)
    return out


def test_the_window_bounds_what_is_out() -> None:
    flights = Flights(2)
    first = begun(flights, 1)
    begun(flights, 2)
    assert flights.begin(3, 0.0) is None
    flights.end(first, 0.0)
    assert not begun(flights, 3).alone


def test_an_answer_reaches_its_frame_once() -> None:
    flights = Flights(2)
    out = sent(flights, 1)
    assert out.alone
    assert flights.take(result(1))
    assert out.news.is_set()
    assert not flights.take(result(1)), "a duplicate is unwanted"
    assert not flights.take(refusal(1)), "so is a refusal behind the answer"
    assert out.failed == ""
    assert not flights.take(result(7)), "nobody asked for this one"
    flights.end(out, 0.0)
    assert flights.count == 0


def test_an_answer_to_an_attempt_that_never_was_is_unwanted() -> None:
    flights = Flights(2)
    out = sent(flights, 1)
    assert not flights.take(result(1, attempt=2))
    assert not flights.take(result(1, attempt=0))
    begun(flights, 2)
    assert not flights.take(result(2)), "it was not sent yet"
    assert out.parcel is None


def test_a_frame_given_up_holds_its_place_until_its_answer_comes() -> None:
    flights = Flights(1)
    flights.end(sent(flights, 1), 1.0)
    assert flights.begin(2, 1.1) is None
    assert not flights.take(result(1)), "too late for its caller"
    begun(flights, 2, 1.2)


@pytest.mark.parametrize(
    "end", [lambda f: f.take(refusal(1)), lambda f: f.node_lost("edge1"), lambda f: f.node_returned("edge1")]
)
def test_or_until_it_is_known_that_none_will_come(end: Callable[[Flights], object]) -> None:
    flights = Flights(1)
    flights.end(sent(flights, 1), 1.0)
    end(flights)
    begun(flights, 2, 1.2)


def test_a_frame_given_up_is_forgotten_after_a_while() -> None:
    flights = Flights(1)
    flights.end(sent(flights, 1), 1.0)
    begun(flights, 2, 1.0 + CREDIT_SECONDS + 0.1)


def test_a_frame_that_was_refused_everywhere_frees_its_place_at_once() -> None:
    flights = Flights(1)
    out = sent(flights, 1)
    assert flights.take(refusal(1))
    flights.sending(out, ("edge2",), 0.1)
    flights.node_lost("edge2")
    assert out.failed == "edge2 is gone"
    flights.end(out, 0.2)
    assert flights.count == 0


def test_a_frame_that_never_left_frees_its_place_at_once() -> None:
    flights = Flights(1)
    flights.end(begun(flights, 1), 0.0)
    out = sent(flights, 2)
    flights.unsent(out)
    flights.end(out, 0.0)
    assert flights.count == 0


def test_what_befell_an_earlier_attempt_does_not_end_the_present_one() -> None:
    flights = Flights(1)
    out = sent(flights, 1, ("edge1",))
    flights.sending(out, ("edge2",), 0.1)
    flights.node_lost("edge1")
    flights.take(refusal(1, attempt=1))
    assert out.failed == ""
    assert flights.take(refusal(1, attempt=2))
    assert "edge1 refused it (busy)" in out.failed


def test_a_lost_node_fails_the_frames_on_its_routes_only() -> None:
    flights = Flights(2)
    first, second = sent(flights, 1, ("edge1",)), sent(flights, 2, ("edge2", "cloud1"))
    flights.node_lost("edge1")
    assert (first.failed, second.failed) == ("edge1 is gone", "")
    flights.node_lost("cloud1")
    assert second.failed == "cloud1 is gone"


def test_a_node_whose_connection_is_new_never_got_what_was_sent_before() -> None:
    """A frame that waits is sent again; one that was given up takes no place any more."""
    flights = Flights(3)
    waits, elsewhere = sent(flights, 1, ("edge1",)), sent(flights, 2, ("cloud1",))
    flights.end(sent(flights, 3, ("edge1",)), 0.5)
    flights.node_returned("edge1")
    assert (waits.failed, elsewhere.failed) == ("edge1 came back only now", "")
    assert waits.news.is_set()
    assert flights.count == 2
    flights.sending(waits, ("edge1",), 0.6)
    assert flights.take(result(1, attempt=2))


def test_a_lost_broker_fails_all_and_frees_what_was_given_up() -> None:
    flights = Flights(2)
    first, second = sent(flights, 1), sent(flights, 2)
    flights.end(first, 0.5)
    flights.disconnected()
    assert second.failed == "the broker is gone"
    begun(flights, 3, 0.6)


def test_a_broker_lost_while_the_head_ran_does_not_matter_once_it_is_back() -> None:
    flights = Flights(2)
    out = begun(flights, 1)
    flights.disconnected()
    flights.sending(out, ("edge1",), 0.1)
    assert out.failed == ""
    assert not out.news.is_set()
    assert flights.take(result(1))


events = st.lists(
    st.tuples(
        st.sampled_from(["begin", "send", "end", "result", "refusal", "lost", "returned", "broker"]),
        st.integers(1, 6),
        st.integers(1, 3),
    ),
    max_size=60,
)


AT_LARGE: dict[str, Callable[[Flights], None]] = {
    "lost": lambda flights: flights.node_lost("edge1"),
    "returned": lambda flights: flights.node_returned("edge1"),
    "broker": lambda flights: flights.disconnected(),
}


@given(events, st.integers(1, 3))
def test_whatever_happens_the_window_holds_and_no_frame_is_answered_twice(
    story: list[tuple[str, int, int]], window: int
) -> None:
    flights = Flights(window)
    live: dict[int, Out] = {}
    used: set[int] = set()
    answered: set[int] = set()
    for step, (what, seq, attempt) in enumerate(story):
        now = step * 0.1
        if what == "begin" and seq not in used and (out := flights.begin(seq, now)):
            live[seq] = out
            used.add(seq)
        elif what == "send" and seq in live:
            flights.sending(live[seq], ("edge1",), now)
        elif what == "end" and seq in live:
            flights.end(live.pop(seq), now)
        elif what == "result" and flights.take(result(seq, attempt)):
            assert seq in live
            assert seq not in answered
            answered.add(seq)
        elif what == "refusal":
            flights.take(refusal(seq, attempt))
        elif what in AT_LARGE:
            AT_LARGE[what](flights)
        assert flights.count <= window
        assert all(out.news.is_set() for out in live.values() if out.parcel or out.failed)
    for out in live.values():
        flights.end(out, 100.0)
    begun(flights, 99, 200.0)


def test_a_frame_that_was_given_up_is_not_forgotten_while_it_waits_on_this_machine() -> None:
    """Else a link that carries nothing would get four frames more every three seconds."""
    flights, waiting = Flights(1), [1]
    flights.backlog = lambda: waiting[0]
    out = flights.begin(1, 0.0)
    assert out is not None
    flights.sending(out, ("edge1",), 0.0)
    flights.end(out, 0.5)
    assert flights.begin(2, 0.5 + 2 * CREDIT_SECONDS) is None
    waiting[0] = 0
    assert flights.begin(2, 0.5 + 2 * CREDIT_SECONDS) is not None


def test_a_frame_that_is_asked_about_again_takes_no_answer_to_the_first_question() -> None:
    """WIRE-82: the first was sent twice; the answer to its other attempt comes too late, and is not the finer one."""
    flights = Flights(2)
    out = sent(flights, 1)
    flights.sending(out, ("edge2",), 0.1)
    assert flights.take(result(1, attempt=2))
    flights.reopen(out)
    flights.sending(out, ("edge2",), 0.2)
    assert not out.news.is_set()
    assert not flights.take(result(1, attempt=1))
    assert not flights.take(result(1, attempt=2))
    assert flights.take(result(1, attempt=3))
    flights.end(out, 0.3)
    assert flights.count == 0


def test_a_second_question_that_gets_no_answer_keeps_its_place_for_a_while() -> None:
    flights = Flights(1)
    out = sent(flights, 1)
    assert flights.take(result(1))
    flights.reopen(out)
    flights.sending(out, ("edge1",), 0.1)
    flights.end(out, 0.2)
    assert flights.begin(2, 0.3) is None
    assert not flights.take(result(1, attempt=2)), "its caller has the first answer"
    begun(flights, 2, 0.4)


def test_a_second_question_that_never_went_out_takes_no_place() -> None:
    flights = Flights(1)
    out = sent(flights, 1)
    assert flights.take(result(1))
    flights.reopen(out)
    flights.end(out, 0.2)
    assert flights.count == 0
