"""The decisions about a frame under way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_device.policy import MARGIN_S, Flight, Resend, RunLocally, Wait, latest_start, next_step

seconds = st.floats(0, 10, allow_nan=False)
FLIGHT = Flight(expected_s=0.05, sent=0.0, routes_left=1)


def test_a_frame_waits_while_its_route_may_still_answer() -> None:
    assert next_step(FLIGHT, last_start=0.8, now=0.01) == Wait(3 * 0.05)


def test_a_slow_route_is_given_up_for_an_alternate() -> None:
    assert next_step(FLIGHT, last_start=0.8, now=0.2) == Resend()


def test_a_refusal_is_answered_by_the_alternate_at_once() -> None:
    refused = Flight(expected_s=0.05, sent=0.0, routes_left=1, failed="edge1 refused it (busy)")
    assert next_step(refused, last_start=0.8, now=0.01) == Resend()


def test_a_refusal_without_alternate_is_answered_locally_with_its_reason() -> None:
    refused = Flight(expected_s=0.05, sent=0.0, routes_left=0, failed="edge1 is gone")
    assert next_step(refused, last_start=0.8, now=0.01) == RunLocally("edge1 is gone")


def test_an_alternate_that_would_be_too_late_is_not_tried() -> None:
    refused = Flight(expected_s=0.5, sent=0.0, routes_left=3, failed="edge1 is gone")
    assert next_step(refused, last_start=0.4, now=0.1) == RunLocally("edge1 is gone")


def test_the_local_run_begins_early_enough() -> None:
    assert latest_start(deadline=1.0, local_s=0.1, now=0.0) == pytest.approx(1.0 - 0.12 - 0.05)
    assert latest_start(deadline=0.05, local_s=0.01, now=0.0) == pytest.approx(0.05 - 0.012 - MARGIN_S)


def test_a_model_too_slow_for_the_deadline_leaves_the_bus_all_the_time() -> None:
    assert latest_start(deadline=0.2, local_s=3.0, now=0.0) == 0.2


@given(
    expected=seconds,
    sent=seconds,
    routes=st.integers(0, 4),
    failed=st.sampled_from(["", "gone"]),
    last=seconds,
    now=seconds,
)
def test_every_state_leads_on_and_never_past_the_last_start(
    expected: float, sent: float, routes: int, failed: str, last: float, now: float
) -> None:
    step = next_step(Flight(expected, sent, routes, failed), last, now)
    match step:
        case Wait(until):
            assert now < until <= last
            assert not failed
        case Resend():
            assert routes > 0
            assert now + expected < last
        case RunLocally(reason):
            assert reason
            assert now >= last or failed
