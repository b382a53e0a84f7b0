"""How many messages a device may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from splitbus_worker.allowance import TELL_SECONDS, Allowance


def test_a_flood_is_dropped_counted_and_told_now_and_then() -> None:
    allowance = Allowance(10)
    assert sum(allowance.take("bad", 0.0) for _ in range(1000)) == 10
    assert allowance.take("good", 0.0), "another device has its own"
    assert allowance.to_tell("bad", 0.0) == 990
    assert not allowance.take("bad", 0.05)
    assert allowance.take("bad", 0.15)
    assert allowance.to_tell("bad", 0.2) == 0, "told a moment ago"
    assert allowance.to_tell("bad", TELL_SECONDS) == 1
    assert allowance.to_tell("bad", 99.0) == 0
    assert allowance.to_tell("good", 99.0) == 0


@given(st.lists(st.floats(0, 0.5), max_size=300))
def test_no_more_than_the_rate_and_a_burst(waits: list[float]) -> None:
    allowance, now, read = Allowance(20), 0.0, 0
    for wait in waits:
        now += wait
        read += allowance.take("cam", now)
    assert read <= 20 + 20 * now + 1
    assert read >= min(len(waits), 20)


def test_devices_are_bounded() -> None:
    allowance = Allowance(1, max_devices=8)
    for number in range(10_000):
        assert allowance.take(f"cam{number}", 0.0)
    assert len(allowance._buckets) == 8
