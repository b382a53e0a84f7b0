"""Change points: steps are seen after few samples, jitter and single outliers never add up."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.changes import BUSY, QUEUE, RATE, ROUND_TRIP, Level, Sensitivity, follow


def levels(samples: list[float], how: Sensitivity, level: Level | None = None) -> list[Level]:
    found = []
    for sample in samples:
        level = follow(level, sample, how)
        found.append(level)
    return found


def settled(at: float, how: Sensitivity) -> Level:
    return levels([at] * 2 * how.memory, how)[-1]


@pytest.mark.parametrize(
    ("how", "shift", "samples"),
    [
        (RATE, math.log(5), 1),
        (RATE, math.log(3), 1),
        (RATE, math.log(2), 2),
        (RATE, math.log(1.5), 5),
        (ROUND_TRIP, math.log(1.5), 2),
        (BUSY, 0.9, 2),
        (BUSY, 0.4, 2),
        (BUSY, 0.25, 3),
        (QUEUE, math.log(9), 2),
        (QUEUE, math.log(2), 3),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_is_seen_after_so_many_samples(how: Sensitivity, shift: float, samples: int, sign: int) -> None:
    """Computed by hand: the sums grow by min(shift, bound) - slack less what the mean gives way."""
    found = levels([sign * shift] * 10, how, settled(0.0, how))
    assert [level.changes for level in found].index(1) + 1 == samples
    assert found[-1].changes == 1
    assert found[-1].mean == pytest.approx(sign * shift)


def test_a_round_trip_that_fell_to_half_is_believed_at_once() -> None:
    """A queue makes it longer, nothing makes it shorter."""
    fell = levels([math.log(0.5)], ROUND_TRIP, settled(0.0, ROUND_TRIP))
    rose = levels([math.log(2)], ROUND_TRIP, settled(0.0, ROUND_TRIP))
    assert (fell[-1].changes, rose[-1].changes) == (1, 0)


@given(st.floats(-20, 20), st.sampled_from([RATE, ROUND_TRIP, BUSY, QUEUE]), st.integers(0, 30))
def test_one_outlier_that_is_bounded_below_the_alarm_is_no_change(at: float, how: Sensitivity, more: int) -> None:
    found = levels([at, *[0.0] * more], how, settled(0.0, how))
    most = how.fall if at < 0 and how.fall else how.bound
    assert (found[-1].changes == 0) or most - how.slack > how.alarm
    assert all(abs(level.mean) <= most / how.memory * 1.5 for level in found if not level.changes)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("how", "size"), [(RATE, 0.2), (ROUND_TRIP, 0.2), (BUSY, 0.1)])
def test_an_hour_of_jitter_is_no_change(how: Sensitivity, size: float, seed: int) -> None:
    draw = random.Random(seed)
    found = levels([draw.uniform(-size, size) for _ in range(3600)], how)
    assert found[-1].changes == 0
    assert all(abs(level.mean) < size / 2 for level in found[how.memory :])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.sampled_from([RATE, ROUND_TRIP, BUSY, QUEUE]))
def test_a_level_lies_among_its_samples(samples: list[float], how: Sensitivity) -> None:
    for count, level in enumerate(levels(samples, how), start=1):
        assert min(samples[:count]) - 1e-9 <= level.mean <= max(samples[:count]) + 1e-9
        assert level.above >= 0 <= level.below


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=40), st.floats(-5, 5))
def test_what_is_a_change_does_not_depend_on_where_the_level_lies(samples: list[float], by: float) -> None:
    here, there = levels(samples, RATE), levels([sample + by for sample in samples], RATE)
    assert here[-1].mean + by == pytest.approx(there[-1].mean, abs=1e-6) or here[-1].changes != there[-1].changes
