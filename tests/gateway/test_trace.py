"""Traces of a link: what is read, what is refused with its line, what is made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.given import write_trace

from splitbus_gateway.trace import LEAST_MBIT, Moment, drive, parse_trace, steps
from splitbus_schemas.errors import ConfigError

HEADER = "seconds,up,down,rtt"


def test_lines_hold_until_the_next() -> None:
    trace = parse_trace(
        ["\ufeffseconds,up,down,rtt\n", "# a drive\n", "\n", "0, 50, 40, 20\n", "2.5,5,4,60\n"], "t.csv"
    )
    assert trace.moments == (Moment(0, 50, 40, 20), Moment(2.5, 5, 4, 60))
    assert (trace.begin, trace.end, trace.seconds, trace.durations()) == (0.0, 5.0, 5.0, (2.5, 2.5))
    assert [trace.at(second).up_mbit for second in (-1.0, 0.0, 2.4, 2.5, 9.0)] == [50, 50, 50, 5, 5]


def test_no_header_and_one_line() -> None:
    assert parse_trace(["3,1,1,5"], "t.csv").end == 4.0


def test_a_link_that_is_cut_is_very_slow() -> None:
    assert parse_trace(["0,0,0,20"], "t.csv").moments[0].state == (LEAST_MBIT, LEAST_MBIT, 20)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([HEADER], "t.csv holds no line of a trace"),
        ([HEADER, "0,50,50,20", "1,50,50"], "t.csv line 3 has 3 columns, not 4"),
        ([HEADER, "0,50,fast,20"], "t.csv line 2: down Mbit/s 'fast' is no number"),
        (["0,50,50,20", HEADER], "t.csv line 2: seconds 'seconds' is no number"),
        (["0,-1,50,20"], "t.csv line 1: up Mbit/s is -1, between 0 and 1e"),
        (["0,nan,50,20"], "t.csv line 1: up Mbit/s 'nan' is no number"),
        (["0,1e300,50,20"], "between 0 and 1e"),
        (["0,50,50,99999999"], "t.csv line 1: rtt ms is 1e"),
        (["0,50,50,20", "0,50,50,20"], "t.csv line 2: 0 s is not after 0 s"),
        (["5,50,50,20", "4,50,50,20"], "t.csv line 2: 4 s is not after 5 s"),
    ],
)
def test_a_bad_line_is_named(lines: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_trace(lines, "t.csv")


@given(st.lists(st.text(alphabet="0123456789.,-e+nainf# x", max_size=30), max_size=8))
def test_whatever_a_file_holds_is_a_trace_or_refused(lines: list[str]) -> None:
    try:
        trace = parse_trace(lines, "t.csv")
    except ConfigError:
        return
    assert trace.seconds > 0
    assert all(value >= 0 for moment in trace.moments for value in moment.state)


@given(st.integers(0, 20))
def test_a_drive_is_the_same_for_the_same_seed_and_survives_a_file(seed: int) -> None:
    trace = drive(seed, seconds=60)
    assert trace == drive(seed, seconds=60)
    assert trace.seconds == pytest.approx(60)
    read = parse_trace(write_trace(trace), "t.csv")
    assert [m.up_mbit for m in read.moments] == pytest.approx([m.up_mbit for m in trace.moments], rel=1e-3)
    assert all(0 < moment.up_mbit <= 60 for moment in trace.moments)


def test_drives_have_fades() -> None:
    rates = [moment.up_mbit for seed in range(5) for moment in drive(seed).moments]
    assert min(rates) < 1
    assert max(rates) > 30


def test_steps() -> None:
    trace = steps([50, 10, 50], each_s=20)
    assert [(m.at, m.up_mbit, m.down_mbit) for m in trace.moments] == [(0, 50, 50), (20, 10, 10), (40, 50, 50)]
    assert trace.end == 60
