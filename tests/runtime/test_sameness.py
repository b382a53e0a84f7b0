"""When two answers say the same."""

from __future__ import annotations

import numpy as np
import pytest

from splitbus_runtime.engine import Array
from splitbus_runtime.sameness import lead, relative_error, same_answer

SCORES = np.array([[0.1, 0.9, 0.0]], np.float32)
BOXES = np.arange(24, dtype=np.float32).reshape(1, 6, 4)


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ([SCORES], [SCORES], True),
        ([SCORES], [SCORES + np.array([0.5, 0, 0], np.float32)], True),
        ([SCORES], [SCORES[:, ::-1] + np.array([[1, 0, 0]], np.float32)], False),
        ([SCORES], [SCORES * np.nan], False),
        ([BOXES], [BOXES * 1.01], True),
        ([BOXES], [BOXES * 1.1], False),
        ([BOXES], [BOXES[:, :3]], False),
        ([BOXES], [BOXES * np.nan], False),
        ([SCORES, BOXES], [SCORES, BOXES * 1.1], False),
        ([SCORES, BOXES], [SCORES], False),
        ([np.array(["a"])], [np.array(["a"])], True),
        ([np.array(["a"])], [np.array(["b"])], False),
        ([], [], True),
    ],
)
def test_same_answer(expected: list[Array], found: list[Array], *, same: bool) -> None:
    assert same_answer(expected, found) is same


def test_relative_error() -> None:
    assert relative_error(BOXES, BOXES * 1.5) == pytest.approx(0.5)
    assert relative_error(BOXES * 0, BOXES) == np.inf
    assert relative_error(BOXES * 0, BOXES * 0) == 0.0


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([SCORES], 0.8),
        ([np.array([[0.5, 0.1], [0.2, 0.9]])], 0.4),
        ([SCORES, np.array([[0.5, 0.4, 0.0]])], 0.1),
        ([SCORES, BOXES], 0.8),
        ([np.array([[3.0, 3.0]])], 0.0),
    ],
)
def test_the_lead_is_the_least_of_all_rows_of_all_scores(outputs: list[Array], expected: float) -> None:
    assert lead(outputs) == pytest.approx(expected)


@pytest.mark.parametrize(
    "outputs", [[], [BOXES], [SCORES * np.nan], [SCORES, np.array([[np.inf, 1.0]])], [np.ones((2, 3), np.int64)]]
)
def test_no_lead_without_scores(outputs: list[Array]) -> None:
    """WIRE-81: what has a score that is not finite is in doubt, however small the lead may be that is asked for."""
    assert np.isnan(lead(outputs))
