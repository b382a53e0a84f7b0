"""Frames that are out: whose answer is whose, and how many may be."""

from __future__ import annotations

from splitbus_device.flights import CREDIT_SECONDS, Flights
from splitbus_runtime.transport import Parcel
from splitbus_schemas.packet_types import FrameId, Refusal, Result


def result(seq: int, attempt: int = 1) -> Parcel:
    return Parcel("t", Result(FrameId("cam", "b", seq), "p1", 1, attempt, ()), 1.0, 10, 0, 0.0)


def refusal(seq: int, attempt: int = 1) -> Parcel:
    return Parcel("t", Refusal(FrameId("cam", "b", seq), "p1", 1, attempt, "edge1", "busy"), 1.0, 10, 0, 0.0)


def test_the_window_bounds_what_is_out():
    flights = Flights(2)
    first, second = flights.begin(1, 0.0), flights.begin(2, 0.0)
    assert first is not None
    assert second is not None
    assert flights.begin(3, 0.0) is None
    flights.done(first)
    assert flights.begin(3, 0.0) is not None


def test_an_answer_reaches_its_frame_once():
    flights = Flights(2)
    out = flights.begin(1, 0.0)
    assert out is not None
    assert flights.take(result(1))
    assert out.news.is_set()
    assert not flights.take(result(1)), "a duplicate is unwanted"
    assert not flights.take(result(7)), "nobody asked for this one"


def test_a_frame_given_up_holds_its_place_until_its_answer_comes():
    flights = Flights(1)
    out = flights.begin(1, 0.0)
    assert out is not None
    flights.give_up(out, 1.0)
    assert flights.begin(2, 1.1) is None
    assert not flights.take(result(1)), "too late for its caller"
    assert flights.begin(2, 1.2) is not None


def test_a_frame_given_up_is_forgotten_after_a_while():
    flights = Flights(1)
    out = flights.begin(1, 0.0)
    assert out is not None
    flights.give_up(out, 1.0)
    assert flights.begin(2, 1.0 + CREDIT_SECONDS + 0.1) is not None


def test_a_refusal_of_an_earlier_attempt_does_not_end_the_present_one():
    flights = Flights(1)
    out = flights.begin(1, 0.0)
    assert out is not None
    flights.resent(out, 0.1)
    flights.take(refusal(1, attempt=1))
    assert out.failed == ""
    assert flights.take(refusal(1, attempt=2))
    assert "edge1 refused it (busy)" in out.failed


def test_a_lost_node_fails_the_frames_on_its_routes_only():
    flights = Flights(2)
    first, second = flights.begin(1, 0.0), flights.begin(2, 0.0)
    assert first is not None
    assert second is not None
    first.nodes, second.nodes = ("edge1",), ("edge2",)
    flights.node_lost("edge1")
    assert (first.failed, second.failed) == ("edge1 is gone", "")


def test_a_lost_broker_fails_all_and_frees_what_was_given_up():
    flights = Flights(2)
    first, second = flights.begin(1, 0.0), flights.begin(2, 0.0)
    assert first is not None
    assert second is not None
    flights.give_up(first, 0.5)
    flights.disconnected()
    assert second.failed == "the broker is gone"
    assert flights.begin(3, 0.6) is not None
