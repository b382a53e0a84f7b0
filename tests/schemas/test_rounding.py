"""How senders round: to an integer beside the value, whole numbers kept, dear ones taken later."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray
from tests.schemas.coefficients import TABLES, frequencies

from splitbus_schemas.entropy import Coder
from splitbus_schemas.entropy_tables import TOTAL, make_tables
from splitbus_schemas.rounding import MOST_OFF, PRICE, reaches, whole_steps

LARGEST = 32766


@given(
    values=stn.arrays(np.float32, 20, elements=st.floats(-LARGEST, LARGEST, width=32)),
    reach=st.sampled_from([1 - MOST_OFF, 0.2, 0.37, 0.5]),
)
def test_the_integer_is_one_of_the_two_beside_the_value(values: NDArray[np.float32], reach: float) -> None:
    found = whole_steps(values, np.float32(reach)).astype(np.float64)
    off = np.abs(found) - np.abs(values)
    assert (off <= reach + 1e-6 * np.abs(values)).all()  # never larger than the value by more than the reach
    assert (-off < 1 - reach + 1e-6 * np.abs(values) + 1e-6).all()
    assert (found * values >= 0).all()


@given(
    whole=stn.arrays(np.int16, 20, elements=st.integers(-LARGEST, LARGEST)),
    shift=st.integers(-24, 8),
    reach=st.sampled_from([1 - MOST_OFF, 0.2, 0.37, 0.5]),
)
def test_whole_numbers_stay_whatever_the_step(whole: NDArray[np.int16], shift: int, reach: float) -> None:
    """WIRE-76"""
    step = np.float32(2.0 ** (shift / 4))
    scaled = (whole.astype(np.float32) * step) * np.float32(1 / step)
    np.testing.assert_array_equal(whole_steps(scaled, np.float32(reach)), whole)


def test_a_bit_costs_its_price() -> None:
    """WIRE-76: one magnitude is so many bits dearer than zero, and has to be so much closer."""
    table = frequencies(3, 0.1)
    (reach,) = reaches(make_tables(np.zeros(1, np.int8), 0, [table]), 0)
    bits = np.log2(int(table[0]) / int(table[1]))
    assert np.isclose(reach, 0.5 - PRICE * bits)
    assert whole_steps(np.array([1 - reach + 0.01, 1 - reach - 0.01], np.float32), reach).tolist() == [1, 0]


def test_what_is_nearly_never_sent_is_still_sent_when_it_is_a_step_large() -> None:
    rarest = np.array([TOTAL - 2, 1], np.uint16)
    (reach,) = reaches(make_tables(np.zeros(1, np.int8), 0, [rarest]), 0)
    assert 1 - reach <= MOST_OFF + 1e-6
    assert whole_steps(np.ones(1, np.float32), reach).tolist() == [1]


def test_what_is_as_likely_as_zero_is_rounded_to_the_nearest() -> None:
    flat = np.full(5, TOTAL // 9, np.uint16)
    flat[0] = TOTAL - 2 * int(flat[1:].sum())
    assert np.isclose(reaches(make_tables(np.zeros(1, np.int8), 0, [flat]), 0), 0.5, atol=1e-4)


@given(shift=st.integers(-24, 8))
def test_each_coefficient_is_rounded_by_the_table_that_codes_it(shift: int) -> None:
    found = reaches(TABLES, shift)
    layout = Coder(TABLES).layout(shift, all_sent=False)
    assert (found[layout.left_out] == 0.5).all()
    for table, start, end in layout.runs:
        rows = TABLES.frequencies[table]
        expected = np.clip(0.5 - PRICE * np.log2(int(rows[0]) / int(rows[1])), 1 - MOST_OFF, 0.5)
        np.testing.assert_allclose(found[layout.order[start:end]], expected, rtol=1e-6)


def test_fewer_bytes_than_the_nearest_integers_take() -> None:
    values = np.random.default_rng(0).laplace(0, 0.4, (40, *TABLES.shape)).astype(np.float32)
    coder = Coder(TABLES)
    ours, nearest = coder.encode(values, 0), coder.encode(np.rint(values), 0)
    assert ours is not None
    assert nearest is not None
    assert len(ours) < len(nearest)
