"""When a connection is asked for a sign of life, and when it is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.liveness import (
    ANSWER_S,
    CLOSED_S,
    DOUBTED_S,
    LIVELY_QUIET_S,
    MAX_SLOW_S,
    QUIET_S,
    STANDING_S,
    Liveness,
)

ATTEMPTS_S = (0.0, 0.2, 0.6, 1.4, 3.0, 6.2)
"""When Linux sends again what is not acknowledged, where round trips are short."""

CUT_S = 2.0


def lively(until: float) -> Liveness:
    """A connection on which something came ten times a second."""
    life = Liveness(until - 5.0)
    for turn in range(50, -1, -1):
        life.heard(until - turn / 10)
    return life


def asked_at(life: Liveness, sent_at: float, now: float) -> float:
    """When it is asked; it says itself how long there is nothing to do."""
    now += life.due_in(sent_at, now)
    assert life.is_to_ask(sent_at, now + 1e-9)
    life.asked(now)
    return now


def dies_at(life: Liveness, now: float) -> float:
    now += life.due_in(now, now)
    assert life.is_dead(now + 1e-9)
    return now


def test_a_silent_connection_is_asked_and_an_answer_ends_the_doubt() -> None:
    life = Liveness(0.0)
    assert not life.is_to_ask(0.0, QUIET_S - 0.01)
    assert asked_at(life, 0.0, 0.0) == pytest.approx(QUIET_S)
    assert not life.is_to_ask(QUIET_S, QUIET_S + 1), "one question at a time"
    assert not life.is_dead(QUIET_S + ANSWER_S - 0.01)
    life.heard(QUIET_S + 0.01)
    assert not life.is_dead(100.0)
    assert life.is_to_ask(100.0, 100.0)


def test_a_lively_connection_is_asked_sooner() -> None:
    assert asked_at(lively(10.0), 10.0, 10.0) == pytest.approx(10.0 + LIVELY_QUIET_S, abs=0.01)


def test_the_broker_hears_of_us_though_we_only_listen() -> None:
    """Who says nothing for one and a half times the keepalive is thrown out."""
    life = lively(10.0)
    assert not life.is_to_ask(10.0 - QUIET_S + 0.1, 10.0)
    assert life.is_to_ask(10.0 - QUIET_S, 10.0)


@pytest.mark.parametrize("life", [Liveness(10.0), lively(10.0)], ids=["quiet", "lively"])
def test_a_router_that_forgot_us_is_noticed(life: Liveness) -> None:
    """It takes what we send, at once, and nothing ever comes."""
    asked_at(life, 10.0, 10.0)
    for turn in range(31):
        life.backlog(9000 * (turn % 2), 11.5 + turn / 100)
    assert dies_at(life, 12.0) <= 10.0 + QUIET_S + ANSWER_S


def test_a_connection_whose_twin_died_has_less_time() -> None:
    life = lively(10.0)
    life.doubt()
    assert life.due_in(10.0, 10.1) == 0.0
    assert asked_at(life, 10.0, 10.1) == 10.1
    assert dies_at(life, 10.1) == pytest.approx(10.1 + DOUBTED_S, abs=0.01)
    life.heard(10.2)
    assert not life.is_dead(12.0)


def test_one_that_was_asked_long_before_its_twin_died_is_given_up_with_it() -> None:
    life = Liveness(0.0)
    asked_at(life, 0.0, 0.0)
    assert not life.is_dead(QUIET_S + DOUBTED_S)
    life.doubt()
    assert life.is_dead(QUIET_S + DOUBTED_S + 1e-9)


@given(st.floats(0.0, QUIET_S), st.booleans())
def test_a_cut_of_two_seconds_ends_nothing(begins: float, was_lively: bool) -> None:
    """The cut begins at any moment of the silence; the kernel finds the link again with one of its attempts."""
    life = lively(0.0) if was_lively else Liveness(0.0)
    asked = asked_at(life, 0.0, 0.0)
    begins = min(begins, asked)
    returns = next(asked + attempt for attempt in ATTEMPTS_S if asked + attempt >= begins + CUT_S or begins > asked)
    now = asked
    while now < returns:
        life.backlog(2, now)
        assert not life.is_dead(now)
        now += 0.05
    life.heard(returns)
    assert not life.is_dead(returns)


@given(st.floats(0.01, MAX_SLOW_S))
def test_a_link_whose_answers_take_long_is_given_longer(usual_s: float) -> None:
    life = Liveness(0.0)
    now = asked_at(life, 0.0, 0.0)
    life.heard(now + usual_s)
    now = asked_at(life, 0.0, now + usual_s)
    assert not life.is_dead(now + usual_s + ANSWER_S - 0.01)
    assert life.is_dead(now + usual_s + ANSWER_S + 0.01)


def test_an_answer_has_time_behind_a_backlog_that_moves() -> None:
    """A slow link takes long, a bulk transfer fills it, and the connection stands."""
    life = Liveness(0.0)
    now, left = asked_at(life, 0.0, 0.0), 500_000
    while left > 0:
        life.backlog(left, now)
        assert not life.is_dead(now)
        now, left = now + 0.5, left - 10_000
    life.backlog(0, now)
    assert not life.is_dead(now + ANSWER_S - 0.6)
    assert life.is_dead(now + ANSWER_S)


def test_a_backlog_that_stands_is_given_up() -> None:
    """Nobody acknowledges anything: the other end is gone, or a router forgot us."""
    life = lively(10.0)
    asked_at(life, 10.0, 10.0)
    for turn in range(40):
        life.backlog(1000 + turn, 10.1 + turn / 10)
    assert dies_at(life, 12.0) == pytest.approx(10.1 + STANDING_S)


def test_a_peer_that_has_no_room_is_given_longer_than_one_that_says_nothing() -> None:
    """A link so slow that the relay before it reads nothing for seconds: its kernel answers, and takes nothing."""
    life = lively(10.0)
    asked_at(life, 10.0, 10.0)
    for turn in range(40):
        life.backlog(200_000, 10.1 + turn / 10, acked_at=10.1 + turn / 10 - 0.2)
        assert not life.is_dead(10.1 + turn / 10)
    assert dies_at(life, 14.0) == pytest.approx(10.1 + CLOSED_S)


@given(st.lists(st.tuples(st.sampled_from(["heard", "backlog", "doubt"]), st.floats(0, 2), st.integers(0, 10**6))))
def test_it_always_says_when_to_look_again(events: list[tuple[str, float, int]]) -> None:
    """Who waits as long as it says finds something to do, and never turns in circles."""
    life, now, sent = Liveness(0.0), 0.0, 0.0
    for what, pause, size in events:
        now += pause
        if what == "heard":
            life.heard(now)
        elif what == "backlog":
            life.backlog(size, now)
        else:
            life.doubt()
        if life.is_dead(now):
            return
        if life.is_to_ask(sent, now):
            life.asked(now)
            sent = now
        assert life.due_in(sent, now) > 0
        later = now + life.due_in(sent, now) + 1e-6
        assert life.is_dead(later) or life.is_to_ask(sent, later)
