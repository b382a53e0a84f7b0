"""A small gain that stays is taken in the end; one that comes and goes never is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.hysteresis import GAP_S, History, Settings, lean, should_switch
from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import Objective, Split

LATENCY = Objective()
SINCE = History(0.0, 100.0)


def way(ms: float, name: str, noise_ms: float = 0.0) -> Priced:
    return Priced(Split(("cam1", name)), ms, (), noise_ms)


def taken_after(best_ms: Callable[[int], float], noise_ms: float = 0.0, every_s: float = 0.5) -> float | None:
    """When a way of `best_ms(look)` follows one of 100 ms, looked at twice a second for two minutes."""
    history, now = SINCE, 100.0
    for look in range(240):
        now += every_s
        current, best = way(100.0, "a"), way(best_ms(look), "b", noise_ms)
        history = lean(history, current, best, now, Settings(), LATENCY)
        if should_switch(current, best, now, history, Settings()).switch:
            return now - 100.0
    return None


@pytest.mark.parametrize(
    ("gain_ms", "seconds"),
    [(12.0, 0.5), (9.5, 4.0), (6.0, 7.5), (4.0, 21.5), (2.9, None), (0.0, None)],
)
def test_the_smaller_a_gain_the_longer_it_has_to_stay(gain_ms: float, seconds: float | None) -> None:
    assert taken_after(lambda _: 100.0 - gain_ms) == seconds


def test_a_gain_that_comes_and_goes_is_never_taken() -> None:
    rng = random.Random(1)
    assert taken_after(lambda _: 100.0 - min(9.0, rng.gauss(0.0, 5.0))) is None
    assert taken_after(lambda look: 91.0 if look % 3 == 0 else 100.0) is None


def test_a_gain_within_the_noise_does_not_add_up() -> None:
    assert taken_after(lambda _: 92.0, noise_ms=9.0) is None
    assert taken_after(lambda _: 92.0, noise_ms=7.0) is not None


def test_time_in_which_nobody_looked_counts_little() -> None:
    current, best = way(100.0, "a"), way(92.0, "b")
    once = lean(SINCE, current, best, 100.0, Settings(), LATENCY)
    late = lean(once, current, best, 10_000.0, Settings(), LATENCY)
    assert once.leaning == 0.0
    assert late.leaning == pytest.approx((0.8 - 0.3) * GAP_S)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(50, 150)), max_size=30))
def test_what_adds_up_is_never_less_than_nothing_nor_more_than_the_time(looks: list[tuple[float, float]]) -> None:
    history, now = SINCE, 0.0
    for passed, ms in looks:
        now += passed
        history = lean(history, way(100.0, "a"), way(ms, "b"), now, Settings(), LATENCY)
        assert 0.0 <= history.leaning <= now


@pytest.mark.parametrize(("gain_ms", "switch"), [(3.0, True), (0.5, True), (0.0, False), (-1.0, False)])
def test_a_way_that_was_not_there_before_needs_a_gain_but_none_beyond_noise(gain_ms: float, switch: bool) -> None:
    """A broker that ends says that everybody is lost; the way that came next was nobody's choice."""
    current, best = way(40.0, "b"), way(40.0 - gain_ms, "a", noise_ms=7.0)
    free, chosen = History(float("-inf"), 40.0, free=True), History(float("-inf"), 40.0)
    assert should_switch(current, best, 100.0, free, Settings()).switch == switch
    assert not should_switch(current, best, 100.0, chosen, Settings()).switch
