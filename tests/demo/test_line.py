"""A line never carries more than its rate allows, never reorders, and never idles while it has work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_demo.line import MAX_BACKLOG_BYTES, MAX_BACKLOG_SECONDS, Line, Link
from splitbus_schemas.errors import ConfigError

RATES = st.floats(0.1, 1000)
PIECES = st.lists(st.tuples(st.floats(0, 0.01), st.integers(1, 16384)), min_size=1, max_size=50)


@given(mbit=RATES, delay_ms=st.floats(0, 5000), pieces=PIECES)
def test_pieces_arrive_in_order_at_the_lines_rate(
    mbit: float, delay_ms: float, pieces: list[tuple[float, int]]
) -> None:
    line, now, arrivals = Line(mbit, delay_ms), 0.0, []
    for pause, size in pieces:
        now += pause
        arrivals.append(line.send(now, size))
        alone = size * 8 / (mbit * 1e6) + delay_ms / 1e3
        assert arrivals[-1] >= now + alone - 1e-9
        earliest = max(now + alone, arrivals[-2] + size * 8 / (mbit * 1e6) if len(arrivals) > 1 else 0)
        assert arrivals[-1] == pytest.approx(earliest)
    assert arrivals == sorted(arrivals)
    assert line.carried == sum(size for _, size in pieces)


@given(mbit=RATES)
def test_the_backlog_is_bounded_and_a_free_line_takes_a_piece(mbit: float) -> None:
    line = Line(mbit, 0)
    assert line.wait(0.0) <= 0
    taken = 0
    while line.wait(0.0) <= 0:
        line.send(0.0, line.piece)
        taken += line.piece
    bytes_per_second = mbit * 1e6 / 8
    assert taken <= max(MAX_BACKLOG_BYTES, line.piece) + 1
    assert taken <= max(MAX_BACKLOG_SECONDS * bytes_per_second, line.piece) + 1
    assert taken <= line.capacity
    assert line.wait(line.wait(0.0)) <= 1e-9


def test_a_new_pace_holds_for_what_is_sent_after_it() -> None:
    line = Line(8, 100)
    assert line.send(0.0, 1_000_000) == pytest.approx(1.1)
    line.set(80, 0)
    assert line.send(0.0, 1_000_000) == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("link", "named"),
    [((0, 1, 0), "up_mbit"), ((1, -2, 0), "down_mbit"), ((1, 2000, 0), "down_mbit"), ((1, 1, -1), "delay_ms")],
)
def test_an_impossible_link_is_named(link: tuple[float, float, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Link(*link)
