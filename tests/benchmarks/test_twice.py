"""What asking twice would send: computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def twice(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("_twice")


@pytest.fixture
def frames(twice: ModuleType) -> Callable[[int, int, list[float]], Any]:
    """Ten frames of that size, the first ones wrong."""
    return lambda size, wrong, margins: twice.Frames(np.full(10, size), np.arange(10) >= wrong, np.array(margins))


def test_the_doubtful_fifth_is_sent_again_and_takes_the_finer_answer(twice: ModuleType, frames: Any) -> None:
    rising = [float(number) for number in range(10)]
    fine, coarse = frames(1000, 0, rising), frames(100, 3, rising)
    assert twice.twice([fine, coarse]) == [(100 + 0.2 * 1000, 0.9)]


def test_a_margin_that_does_not_tell_pays_without_gaining(twice: ModuleType, frames: Any) -> None:
    falling = [float(-number) for number in range(10)]
    assert twice.twice([frames(1000, 0, falling), frames(100, 3, falling)]) == [(300.0, 0.7)]


def test_what_has_no_scores_has_no_margin(twice: ModuleType, frames: Any) -> None:
    assert np.isnan(twice.margin({"boxes": np.zeros((1, 4, 4))}))
    assert twice.margin({"scores": np.array([[0.1, 0.7, 0.3]])}) == np.float64(0.7) - np.float64(0.3)
    assert twice.twice([frames(9, 0, [np.nan] * 10)] * 2) == []
