"""What asking twice would send: computed by hand."""

from __future__ import annotations

import numpy as np
from _twice import Frames, margin, twice


def frames(size: int, wrong: int, margins: list[float]) -> Frames:
    """Ten frames of that size, the first ones wrong."""
    return Frames(np.full(10, size), np.arange(10) >= wrong, np.array(margins))


def test_the_doubtful_fifth_is_sent_again_and_takes_the_finer_answer() -> None:
    rising = [float(number) for number in range(10)]
    fine, coarse = frames(1000, 0, rising), frames(100, 3, rising)
    assert twice([fine, coarse]) == [(100 + 0.2 * 1000, 0.9)]


def test_a_margin_that_does_not_tell_pays_without_gaining() -> None:
    falling = [float(-number) for number in range(10)]
    assert twice([frames(1000, 0, falling), frames(100, 3, falling)]) == [(300.0, 0.7)]


def test_what_has_no_scores_has_no_margin() -> None:
    assert np.isnan(margin({"boxes": np.zeros((1, 4, 4))}))
    assert margin({"scores": np.array([[0.1, 0.7, 0.3]])}) == np.float64(0.7) - np.float64(0.3)
    assert twice([frames(9, 0, [np.nan] * 10)] * 2) == []
