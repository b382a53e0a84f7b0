"""Bounds against tables and against chance itself; a promise is doubted when it is broken, and hardly ever when not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.promise import WINDOW, Record, at_least


@pytest.mark.parametrize(
    ("agreed", "checked", "bound"),
    [(0, 10, 0.0), (10, 10, 0.05 ** (1 / 10)), (298, 298, 0.05 ** (1 / 298)), (9, 10, 0.6058), (95, 100, 0.8977)],
)
def test_known_bounds(agreed: int, checked: int, bound: float) -> None:
    """The last two from a table of one-sided 95 % Clopper-Pearson limits."""
    assert at_least(agreed, checked) == pytest.approx(bound, abs=5e-4)


@given(st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_enclose_the_share(counts: tuple[int, int]) -> None:
    agreed, checked = counts
    share = agreed / checked if checked else 0.5
    assert 0.0 <= at_least(agreed, checked) <= share <= 1.0 - at_least(checked - agreed, checked) <= 1.0


def test_a_share_is_below_its_bound_one_time_in_twenty_at_most() -> None:
    rng = np.random.default_rng(1)
    for share in (0.9, 0.98):
        found = rng.binomial(200, share, 4000)
        assert np.mean([at_least(int(n), 200) > share for n in found]) <= 0.055


def test_what_is_no_count() -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        at_least(3, 2)


@pytest.mark.parametrize(("share", "frames"), [(0.98, 149), (0.99, 299), (0.5, 5)])
def test_frames_needed(share: float, frames: int) -> None:
    needed = next(count for count in itertools.count(1) if at_least(count, count) >= share)
    assert frames <= needed <= frames * 1.03 + 1
    assert at_least(needed, needed) >= share


def test_a_broken_promise_is_doubted_soon() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        record, frames = Record(), 0
        while not record.doubts(0.98):
            record = record.after(1, int(rng.random() < 0.85))
            frames += 1
        assert frames < 200


def test_a_kept_promise_is_hardly_ever_doubted() -> None:
    rng = np.random.default_rng(3)
    doubted = 0
    for _ in range(100):
        record = Record()
        for good in rng.random(1000) < 0.985:
            record = record.after(1, int(good))
            if record.doubts(0.98):
                doubted += 1
                break
    assert doubted <= 5


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), max_size=60))
def test_a_record_is_bounded_and_a_share(reports: list[tuple[int, float]]) -> None:
    record = Record()
    for checked, share in reports:
        record = record.after(checked, int(checked * share))
    assert 0 <= record.agreed <= record.checked < WINDOW + 50
