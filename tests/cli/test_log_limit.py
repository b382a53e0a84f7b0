"""How often a kind of log line may come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from splitbus_cli.log_limit import BURST, PER_SECOND, LineLimit


def test_a_burst_then_one_in_a_while_and_nothing_is_lost_from_the_count() -> None:
    limit = LineLimit(burst=3, per_second=0.5)
    assert [limit.take("a", 0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert limit.take("b", 0.0) == 0, "another kind has its own"
    assert limit.take("a", 1.9) is None
    assert limit.take("a", 2.0) == 3
    assert limit.take("a", 2.0) is None
    assert limit.quiet(3.0) == []
    assert limit.quiet(4.0) == [("a", 1)]
    assert limit.quiet(9.0) == [], "told once"
    assert limit.take("a", 4.0) == 0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2)), max_size=200))
def test_every_line_is_written_or_counted(steps: list[tuple[float, int]]) -> None:
    limit, now, written, counted = LineLimit(), 0.0, 0, 0
    for wait, kind in steps:
        now += wait
        if (left_out := limit.take(kind, now)) is not None:
            written, counted = written + 1, counted + left_out
    counted += sum(count for _, count in limit.quiet(now + 1 / PER_SECOND))
    assert written + counted == len(steps)
    assert written <= 3 * (BURST + now * PER_SECOND + 1)


def test_kinds_are_bounded() -> None:
    limit = LineLimit(max_kinds=4)
    for kind in range(1000):
        assert limit.take(kind, 0.0) == 0
    assert len(limit._buckets) == 4
