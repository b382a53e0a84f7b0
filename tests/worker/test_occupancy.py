"""How busy the executors are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_worker.occupancy import Occupancy


def test_idle_is_zero() -> None:
    assert Occupancy(2, 100.0).share(101.0) == 0


def test_what_runs_all_the_time_approaches_one() -> None:
    occupancy = Occupancy(1, 0.0)
    occupancy.change(+1, 0.0)
    for second in range(1, 6):
        share = occupancy.share(float(second))
    assert share > 0.98


def test_one_of_two_lanes_is_half() -> None:
    occupancy = Occupancy(2, 0.0)
    occupancy.change(+1, 0.0)
    assert occupancy.share(20.0) == pytest.approx(0.5)


def test_many_short_runs_add_up() -> None:
    occupancy = Occupancy(1, 0.0)
    for tenth in range(100):
        occupancy.change(+1, tenth / 10)
        occupancy.change(-1, tenth / 10 + 0.03)
    assert occupancy.share(10.0) == pytest.approx(0.3, abs=0.01)


def test_it_forgets() -> None:
    occupancy = Occupancy(1, 0.0)
    occupancy.change(+1, 0.0)
    occupancy.change(-1, 10.0)
    assert occupancy.share(10.0) > 0.9
    assert occupancy.share(13.0) < 0.1


@given(st.lists(st.tuples(st.sampled_from([1, -1, 0]), st.floats(-0.5, 3)), max_size=40))
def test_it_is_a_share_whatever_the_clock_does(steps: list[tuple[int, float]]) -> None:
    occupancy, now, running = Occupancy(3, 0.0), 0.0, 0
    for by, elapsed in steps:
        now += elapsed
        if by and 0 <= running + by <= 3:
            running += by
            occupancy.change(by, now)
        assert 0 <= occupancy.share(now) <= 1
