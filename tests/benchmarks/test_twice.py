"""What sending doubtful frames again takes: computed by hand."""

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
    assert twice.twice([fine, fine, coarse]) == [(100 + 0.2 * 1000, 0.9)]


def test_a_margin_that_does_not_tell_pays_without_gaining(twice: ModuleType, frames: Any) -> None:
    falling = [float(-number) for number in range(10)]
    fine, coarse = frames(1000, 0, falling), frames(100, 3, falling)
    assert twice.twice([fine, fine, coarse]) == [(300.0, 0.7)]


def test_what_has_no_scores_is_not_sent_again(twice: ModuleType, frames: Any) -> None:
    assert twice.twice([frames(9, 0, [np.nan] * 10)] * 3) == []


def test_a_dozen_settings_have_a_finer_one_four_of_them_away(twice: ModuleType, frames: Any) -> None:
    rising = [float(number) for number in range(10)]
    sizes = [1200 - 100 * number for number in range(12)]
    found = twice.twice([frames(size, 0, rising) for size in sizes])
    assert [size for size, _ in found] == [once + 0.2 * (once + 400) for once in sizes[4:]]
