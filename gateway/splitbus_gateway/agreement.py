"""How much of a model's answers survives a lossy codec. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitbus_runtime.engine import Array
from splitbus_runtime.sameness import SAME_ERROR, is_scores, relative_error


def agreement(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """Share of answers that stay the same, for one output over several samples.

    For class scores (two axes, at least two classes): the share with the same best class, or, if less, of all pairs of
    one sample's margin with another's loss of margin that keep the class, which says more than eight yes or no. For
    anything else: the share whose relative error is at most SAME_ERROR.
    """
    if not all(map(is_scores, expected)):
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


def _margin(scores: Array, best: Array) -> Array:
    """By how much the class `best` of each row leads the row's best other class."""
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, best] = -np.inf
    margin: Array = scores[rows, best] - others.max(axis=1)
    return margin
