"""Whether two answers of a model say the same. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from splitbus_runtime.engine import Array

SAME_ERROR: Final = 0.05
"""An answer that is no class score counts as the same up to this relative error: detectors' thresholds are coarser."""


def same_answer(expected: Sequence[Array], found: Sequence[Array]) -> bool:
    """Whether every output of `found` says what the one of `expected` does.

    Class scores (two axes, at least two classes, floating point) by their best class in each row; anything else by its
    relative error, at most SAME_ERROR.
    """
    return len(expected) == len(found) and all(map(_same, expected, found))


def is_scores(array: Array) -> bool:
    """Whether an output looks like class scores."""
    return array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f"


def lead(outputs: Sequence[Array]) -> float:
    """By how much the best score leads the second best: the least of all rows of all class scores.

    An answer with a small lead is the likeliest to be another one had its frame been coded finer. nan with scores that
    are none, and where no output is class scores.
    """
    leads = [_leads(array) for array in outputs if is_scores(array)]
    return float(np.concatenate(leads).min()) if leads else float("nan")


def _leads(scores: Array) -> Array:
    second, best = np.partition(scores.astype(np.float64), -2, axis=1)[:, -2:].T
    found: Array = np.where(np.isfinite(scores).all(axis=1), best - second, np.nan)
    return found


def relative_error(expected: Array, found: Array) -> float:
    """Root of the mean squared difference over that of the expected values; infinite when the shapes differ."""
    if expected.shape != found.shape:
        return np.inf
    wide = expected.astype(np.float64)
    difference, scale = _rms(found.astype(np.float64) - wide), _rms(wide)
    if np.isnan(difference):
        return np.inf
    return difference / scale if scale else float(np.inf if difference else 0.0)


def _same(expected: Array, found: Array) -> bool:
    if expected.shape != found.shape:
        return False
    if is_scores(expected):
        return bool(np.isfinite(found).all() and (expected.argmax(axis=1) == found.argmax(axis=1)).all())
    if expected.dtype.kind not in "fiub":
        return bool(np.array_equal(expected, found))
    return relative_error(expected, found) <= SAME_ERROR


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
