"""How much of a model's answers survives a lossy codec. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from splitbus_runtime.engine import Array

SAME_ERROR: Final = 0.05
"""An answer that is no class score counts as the same up to this relative error: detectors' thresholds are coarser."""


def agreement(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """Share of answers that stay the same, for one output over several samples.

    For class scores (two axes, at least two classes): the share with the same best class, or, if less, of all pairs of
    one sample's margin with another's loss of margin that keep the class, which says more than eight yes or no. For
    anything else: the share whose relative error is at most SAME_ERROR.
    """
    if not all(map(_is_scores, expected)):
        return float(np.mean([relative_error(*pair) <= SAME_ERROR for pair in zip(expected, found, strict=True)]))
    wanted = np.concatenate(expected).astype(np.float64)
    got = np.concatenate(found).astype(np.float64)
    if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return 0.0
    best = wanted.argmax(axis=1)
    margin = _margin(wanted, best)
    loss = margin - _margin(got, best)
    kept = (loss[:, None] <= 0) | (loss[:, None] < margin)
    return float(min((got.argmax(axis=1) == best).mean(), kept.mean()))


def relative_error(expected: Array, found: Array) -> float:
    """Root of the mean squared difference over that of the expected values; infinite when the shapes differ."""
    if expected.shape != found.shape:
        return np.inf
    wide = expected.astype(np.float64)
    difference, scale = _rms(found.astype(np.float64) - wide), _rms(wide)
    if np.isnan(difference):
        return np.inf
    return difference / scale if scale else float(np.inf if difference else 0.0)


def _is_scores(array: Array) -> bool:
    return array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f"


def _margin(scores: Array, best: Array) -> Array:
    """By how much the class `best` of each row leads the row's best other class."""
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, best] = -np.inf
    margin: Array = scores[rows, best] - others.max(axis=1)
    return margin


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
