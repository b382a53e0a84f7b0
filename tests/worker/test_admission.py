"""Whether a worker takes a job: every reason, and that an idle worker always tries."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_schemas.limits import MAX_STAGES
from splitbus_schemas.packet_types import FrameId, Hop, Job, Spent
from splitbus_worker.admission import Refused, State, admit, check_route, smoothed

JOB = Job(
    frame=FrameId("cam", "b1", 1),
    model="0" * 64,
    plan="p1",
    epoch=1,
    attempt=1,
    budget_us=100_000,
    reply_to="splitbus/v1/t/reply/cam/b1",
    route=(Hop("w1", "1" * 64),),
    tensors=(),
)
IDLE = State(node="w1", service_us=20_000)
BUSY = replace(IDLE, running=1, ahead_us=20_000)

REFUSED = {
    "the budget went on the way": (JOB, IDLE, 100_000, "expired"),
    "the line is full of others": (JOB, replace(BUSY, waiting=16), 0, "busy"),
    "what is ahead takes too long": (JOB, replace(BUSY, waiting=4, ahead_us=90_000), 0, "busy"),
    "the way took most of it": (JOB, BUSY, 70_000, "busy"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    job, state, train_us, reason = REFUSED[case]
    with pytest.raises(Refused) as caught:
        admit(job, state, train_us=train_us)
    assert caught.value.reason == reason
    assert str(caught.value)


ADMITTED = {
    "idle": (JOB, IDLE),
    "idle, though the slice once took longer than the budget": (JOB, replace(IDLE, service_us=10**7)),
    "no deadline": (replace(JOB, budget_us=0), replace(BUSY, waiting=4, ahead_us=10**9)),
    "enough time": (JOB, replace(BUSY, waiting=3, ahead_us=80_000)),
    "an executor is free": (JOB, replace(BUSY, concurrency=2, ahead_us=10**9)),
    "a full line in which the device can replace its own": (JOB, replace(BUSY, waiting=16, waiting_of_device=1)),
}


@pytest.mark.parametrize("case", ADMITTED)
def test_admits(case: str) -> None:
    admit(*ADMITTED[case])


def test_executors_share_what_is_ahead() -> None:
    crowded = replace(BUSY, running=2, waiting=2, ahead_us=160_000)
    with pytest.raises(Refused):
        admit(JOB, crowded)
    admit(JOB, replace(crowded, concurrency=2))


ROUTES = {
    "stopping": (JOB, replace(IDLE, stopping=True)),
    "route": (replace(JOB, route=(Hop("w2", "1" * 64),)), IDLE),
}


@pytest.mark.parametrize("reason", ROUTES)
def test_routes(reason: str) -> None:
    with pytest.raises(Refused) as caught:
        check_route(*ROUTES[reason])
    assert caught.value.reason == reason


def test_a_history_that_fits_no_packet_is_refused() -> None:
    check_route(replace(JOB, spent=(Spent("a"),) * (MAX_STAGES - 1)), IDLE)
    with pytest.raises(Refused):
        check_route(replace(JOB, spent=(Spent("a"),) * MAX_STAGES), IDLE)


numbers = st.integers(0, 10**9)


@given(numbers, numbers, numbers, st.integers(0, 40), st.integers(0, 40), st.integers(1, 8))
def test_more_budget_never_turns_yes_into_no(
    budget_us: int, more_us: int, ahead_us: int, waiting: int, running: int, concurrency: int
) -> None:
    state = State("w1", waiting=waiting, running=running, concurrency=concurrency, ahead_us=ahead_us, service_us=5)
    try:
        admit(replace(JOB, budget_us=max(budget_us, 1)), state)
    except Refused:
        return
    admit(replace(JOB, budget_us=max(budget_us, 1) + more_us), state)


def test_a_service_time_follows_a_change_within_ten_frames() -> None:
    value = smoothed(0, 1000)
    assert value == 1000
    for _ in range(10):
        value = smoothed(value, 5000)
    assert 4500 < value <= 5000


@given(numbers, numbers)
def test_a_service_time_stays_between_old_and_new(before: int, newest: int) -> None:
    low, high = sorted((before or newest, newest))
    assert low <= smoothed(before, newest) <= high
