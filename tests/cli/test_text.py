"""Numbers and foreign text at a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_cli.layers import merged
from splitbus_cli.text import milliseconds, printable, rate, shape, shortened, size


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (125_000, "125 kB"), (18_530_000, "18.5 MB")]
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_numbers() -> None:
    assert [milliseconds(ms) for ms in (None, 0.456, 31.24, 412.6)] == ["-", "0.46 ms", "31.2 ms", "413 ms"]
    assert [rate(mbit) for mbit in (None, 19.44, 940.2)] == ["-", "19.4", "940"]
    assert [shape(sizes) for sizes in ((1, None, "N"), ())] == ["1x?xN", "scalar"]


@given(st.text())
def test_printable_is(text: str) -> None:
    assert printable(text).isprintable()


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_printable_text_stays(text: str) -> None:
    assert printable(text) == text


@given(st.text(), st.integers(1, 20))
def test_shortened(text: str, limit: int) -> None:
    assert len(shortened(text, limit)) <= limit


def test_merged() -> None:
    below = {"site": "a", "broker": {"url": "x", "username": "u"}}
    assert merged(below, {"site": None, "broker": {"url": "y"}, "node": "n"}) == {
        "site": "a", "broker": {"url": "y", "username": "u"}, "node": "n"
    }  # fmt: skip
    assert merged({}, {"broker": {}}) == {"broker": {}}
