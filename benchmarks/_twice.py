"""Asking twice: a frame whose answer is in doubt is sent again at a finer setting. What that would take, offline.

The doubtful are those with the smallest margin between the two best scores of the first answer, which whoever gets it
sees. Nothing is chosen by what agrees: the share of doubtful frames and the finer setting are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from splitbus_runtime.engine import Array

SHARE: Final = 0.2
FINER: Final = 4
"""Settings between the first and the second sending, of a way that has a dozen; of six, half as many."""


@dataclass(frozen=True)
class Frames:
    """A setting's bytes, whether the answer stayed, and its margin, for each frame; nan where it has no scores."""

    sizes: Array
    same: Array
    margins: Array


def margin(answer: Mapping[str, Array]) -> float:
    """The best score of the first output less the second best; nan where it holds no scores."""
    scores = next(iter(answer.values()))
    if scores.ndim != 2 or scores.shape[-1] < 2:
        return float("nan")
    second, best = np.sort(scores.ravel())[-2:]
    return float(best - second)


def twice(settings: Sequence[Frames]) -> list[tuple[float, float]]:
    """Mean bytes and agreement of each setting but the finest, its doubtful frames sent again; finest first given."""
    finer = FINER if len(settings) > 2 * FINER else FINER // 2
    found = []
    for number in range(1, len(settings)):
        first, second = settings[number], settings[max(number - finer, 0)]
        if np.isnan(first.margins).any():
            return []
        doubtful = first.margins < np.quantile(first.margins, SHARE)
        size = np.mean(first.sizes + doubtful * second.sizes)
        found.append((float(size), float(np.mean(np.where(doubtful, second.same, first.same)))))
    return found
