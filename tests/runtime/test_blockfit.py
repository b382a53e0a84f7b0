"""Blocks put right: they sum to the whole for any readings, and a model that is known is found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.blockfit import fit

ms = st.floats(0.0, 1e4, allow_nan=False)


@given(st.lists(ms, min_size=1, max_size=30), st.floats(1e-3, 1e5), st.data())
def test_they_sum_to_the_whole_and_none_is_negative(alone: list[float], whole: float, data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(1, max(1, len(alone) - 1)), max_size=4)) if len(alone) > 1 else set()
    anchors = {place: (data.draw(ms), data.draw(ms)) for place in places}
    blocks = fit(alone, whole, anchors)
    assert len(blocks) == len(alone)
    assert sum(blocks) == pytest.approx(whole)
    assert min(blocks) >= -1e-9 * whole


@given(st.lists(st.floats(0.1, 10.0), min_size=2, max_size=30), st.floats(0.0, 0.09))
def test_the_cost_of_a_call_is_taken_off(true: list[float], call: float) -> None:
    """Alone, each block pays for a call, the whole pays once: in between, the true times come out."""
    alone = [block + call for block in true]
    elapsed = np.cumsum(fit(alone, sum(true) + call, {}))
    expected = np.cumsum(true) + call * np.arange(1, len(true) + 1) / len(true)
    assert np.abs(elapsed - expected).max() <= call + 1e-9


def test_between_anchors_only_the_proportions_of_blocks_count() -> None:
    alone = [9.0, 3.0, 1.0, 1.0, 1.0, 1.0]  # the first two look slow when they run alone, by what is not fused
    elapsed = np.cumsum(fit(alone, 8.0, {2: (4.0, 4.0), 4: (6.0, 2.0)}))
    assert elapsed[1] == pytest.approx(4.0)
    assert elapsed[3] == pytest.approx(6.0)
    assert elapsed[2] == pytest.approx(5.0)


def test_an_anchor_weighs_the_smaller_part_more() -> None:
    """A head of 1 ms that is off by 0.2 is wrong by a fifth, a tail of 9 ms by a fiftieth."""
    blocks = fit([1.0, 9.0, 9.0], 10.0, {1: (1.0, 8.8)})
    assert blocks[0] == pytest.approx(1.0, abs=0.01)


def test_anchors_out_of_order_do_not_make_time_run_backwards() -> None:
    assert min(fit([1.0] * 6, 6.0, {2: (5.0, 1.0), 4: (1.0, 5.0)})) >= 0.0


def test_a_model_in_one_block_is_the_whole() -> None:
    assert fit([3.0], 2.0, {}) == [2.0]
    assert fit([0.0, 0.0], 2.0, {}) == [1.0, 1.0]
