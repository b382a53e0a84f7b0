from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitbus_gateway.agreement import agreement
from splitbus_runtime.sameness import relative_error

seeds = st.integers(0, 2**32 - 1)


def scores(seed: int, rows: int = 8, classes: int = 10) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, classes), np.float32) for _ in range(rows)]


@given(seeds)
def test_answers_that_are_the_same_agree(seed: int) -> None:
    assert agreement(scores(seed), scores(seed)) == 1.0


@given(seeds, st.floats(0, 10))
def test_it_is_a_share_and_never_above_what_was_seen(seed: int, noise: float) -> None:
    expected = scores(seed)
    found = [a + np.float32(noise) * b for a, b in zip(expected, scores(seed + 1), strict=True)]
    same = np.mean([a.argmax() == b.argmax() for a, b in zip(expected, found, strict=True)])
    assert 0.0 <= agreement(expected, found) <= same


def test_a_shift_of_all_scores_changes_no_class() -> None:
    expected = scores(0)
    assert agreement(expected, [a + 100 for a in expected]) == 1.0


def test_one_class_in_four_that_turns_is_seen() -> None:
    expected = [np.array([[9.0, 0.0]])] * 3 + [np.array([[0.0, 9.0]])]
    found = [np.array([[9.0, 0.0]])] * 4
    assert agreement(expected, found) <= 0.75


def test_a_narrow_margin_beside_a_large_loss_counts_though_no_class_turned() -> None:
    """Losing 1 of a lead of 5 did not matter here, but it would have in the frame that leads by a half."""
    expected = [np.array([[5.0, 0.0]]), np.array([[0.5, 0.0]])]
    found = [np.array([[4.0, 0.0]]), np.array([[0.5, 0.0]])]
    assert agreement(expected, found) == pytest.approx(3 / 4)


def test_scores_that_are_not_finite_agree_with_nothing() -> None:
    expected = scores(0)
    assert agreement(expected, [np.full_like(a, np.nan) for a in expected]) == 0.0


def test_other_answers_agree_by_their_error() -> None:
    expected = [np.ones((1, 4, 5, 5)), np.ones((1, 4, 5, 5))]
    assert agreement(expected, [expected[0] * 1.01, expected[1] * 1.5]) == 0.5
    assert agreement([np.ones((1, 1))], [np.ones((1, 1))]) == 1.0


@given(seeds, st.floats(0.01, 100))
def test_the_error_is_relative(seed: int, scale: float) -> None:
    a, b = (np.random.default_rng(seed + n).standard_normal(50) for n in range(2))
    assert relative_error(a * scale, b * scale) == pytest.approx(relative_error(a, b))
    assert relative_error(a, a) == 0.0


def test_the_error_of_shapes_zeros_and_nothing() -> None:
    zeros, ones = np.zeros(3), np.ones(3)
    assert relative_error(zeros, zeros) == 0.0
    assert relative_error(zeros, ones) == np.inf
    assert relative_error(ones, np.ones(4)) == np.inf
    assert relative_error(ones, np.full(3, np.nan)) == np.inf
    assert relative_error(np.empty((0, 4)), np.empty((0, 4))) == 0.0
