"""When a backlog is evidence that the peer lives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.drain import LOOK_S, PATIENCE_S, Drain


def test_a_backlog_that_shrinks_moves_and_one_that_stands_does_not() -> None:
    drain = Drain()
    assert not drain.moves(500_000, 0.0)
    assert drain.moves(400_000, 0.5)
    assert drain.moves(400_000, 0.5 + PATIENCE_S - 0.01)
    assert not drain.moves(400_000, 0.5 + PATIENCE_S)


def test_what_is_taken_at_once_proves_nothing() -> None:
    """A proxy, or a router's buffer, takes small things although nobody is behind it."""
    drain = Drain()
    assert not any(drain.moves(left, turn / 10) for turn, left in enumerate([1000, 0] * 50))


def test_after_the_last_of_a_backlog_its_answer_has_time_to_come() -> None:
    drain = Drain()
    drain.moves(9000, 0.0)
    assert drain.moves(10, 1.0)
    assert drain.moves(0, 1.1)
    assert not drain.moves(0, 1.0 + PATIENCE_S)


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_a_backlog_that_never_shrinks_never_moves(sizes: list[int]) -> None:
    drain = Drain()
    assert not any(drain.moves(left, float(turn)) for turn, left in enumerate(sorted(sizes)))


def test_a_busy_connection_is_looked_at_now_and_then() -> None:
    """Often enough that a backlog which moves is seen to, long before the answer to a ping is overdue."""
    drain = Drain()
    looked = [turn / 1000 for turn in range(1000) if drain.is_due(turn / 1000)]
    assert looked[0] == 0.0
    assert len(looked) == pytest.approx(1.0 / LOOK_S, abs=1)
    assert LOOK_S < PATIENCE_S / 10
