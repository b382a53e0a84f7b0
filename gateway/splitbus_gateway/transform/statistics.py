"""Fits the entropy coder's tables to calibration coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitbus_gateway.transform.basis import block_sizes
from splitbus_gateway.transform.quantise import SETTINGS, Transform
from splitbus_runtime.engine import Array
from splitbus_schemas.entropy import step_of
from splitbus_schemas.entropy_tables import LEVELS_PER_OCTAVE, MAX_LIMIT, MAX_TABLES, TOTAL, Tables, make_tables
from splitbus_schemas.rounding import reaches, whole_steps

FIRST = -16  # a mean magnitude of a sixteenth of a step: one coefficient in 3000 would not be zero
_PRIOR_SAMPLES = 4  # what the separable guess of a coefficient's magnitude counts for beside what was measured
_PRIOR_COUNT = 32.0  # what the Laplace distribution counts for beside a table's histogram
_RARE = 2.0**-11  # magnitudes rarer than this together share the table's last entry
_LEVELS = 127
_FEWER = 4  # of the samples, each which many settle how those tables round that the others are fitted with


def fit_tables(coefficients: Array, transform: Transform, *, settings: Sequence[int] = SETTINGS) -> Tables:
    """Tables for coefficients (samples, K, *space) as `analyse` gives them, good for every one of the settings."""
    magnitudes = mean_magnitudes(coefficients, transform)
    with np.errstate(divide="ignore"):
        levels = np.rint(LEVELS_PER_OCTAVE * np.log2(magnitudes))
    levels = np.clip(levels, -_LEVELS, _LEVELS).astype(np.int8)
    count = int(np.clip(int(levels.max()) - min(settings) - FIRST + 1, 1, MAX_TABLES))
    guess = make_tables(levels, FIRST, [_table(np.zeros(MAX_LIMIT + 1), number + FIRST) for number in range(count)])
    return _fit(coefficients, _fit(coefficients[::_FEWER], guess, settings), settings)


def _fit(coefficients: Array, before: Tables, settings: Sequence[int]) -> Tables:
    """Tables of the integers that a sender makes who rounds by the tables `before`."""
    count = len(before.frequencies)
    histograms = np.zeros((count, MAX_LIMIT + 1))
    for shift in settings:
        number = np.minimum(before.levels.astype(int) - shift - FIRST, count - 1)
        sent = number >= 0
        reach = reaches(before, shift)[sent.ravel()]
        scaled = np.clip(
            coefficients[:, sent].astype(np.float32) / np.float32(step_of(shift)), -MAX_LIMIT - 1, MAX_LIMIT + 1
        )
        sizes = np.minimum(np.abs(whole_steps(scaled, reach)), MAX_LIMIT).astype(int)
        cells = (number[sent] * (MAX_LIMIT + 1) + sizes).ravel()
        histograms += np.bincount(cells, minlength=histograms.size).reshape(histograms.shape)
    tables = [_table(histogram, number + FIRST) for number, histogram in enumerate(histograms)]
    return make_tables(before.levels, FIRST, tables)


def mean_magnitudes(coefficients: Array, transform: Transform) -> Array:
    """The mean magnitude of each coefficient over samples and blocks, drawn a little towards component x frequency."""
    found = np.abs(coefficients).mean(axis=0, dtype=np.float64)
    groups = [
        np.concatenate([np.arange(size) for size in block_sizes(length)]) if smooth else np.zeros(length, int)
        for length, smooth in zip(transform.weight.shape, transform.layout.smooth, strict=True)
    ]
    shared = np.full(found.shape[1:], float(len(coefficients)))
    for axis, group in enumerate(groups, start=1):
        sums = np.stack([found.compress(group == g, axis).mean(axis) for g in range(int(group.max()) + 1)], axis)
        found = sums.take(group, axis)
        repeats = np.bincount(group)[group]
        shared = shared * repeats.reshape([-1 if a == axis - 1 else 1 for a in range(shared.ndim)])
    mean = found.mean()
    if not mean:
        return np.asarray(found)
    component = found.mean(axis=tuple(range(1, found.ndim)), keepdims=True)
    guess = component * found.mean(axis=0, keepdims=True) / mean
    return np.asarray((found * shared + guess * _PRIOR_SAMPLES) / (shared + _PRIOR_SAMPLES))


def _table(histogram: Array, level: int) -> Array:
    """Frequencies of the magnitudes 0 to a limit, for a mean magnitude of 2^(level/4) steps."""
    shares = histogram + _PRIOR_COUNT * _laplace(2.0 ** (level / LEVELS_PER_OCTAVE))
    shares /= shares.sum()
    tail = np.cumsum(shares[::-1])[::-1]
    limit = int(np.clip(np.count_nonzero(tail > _RARE), 1, MAX_LIMIT))
    shares = np.append(shares[:limit], tail[limit])
    frequencies = np.maximum(np.rint(shares[1:] * TOTAL / 2), 1).astype(np.int64)
    while 2 * frequencies.sum() > TOTAL - 2:
        frequencies[frequencies.argmax()] -= 1
    return np.concatenate(([TOTAL - 2 * frequencies.sum()], frequencies)).astype(np.uint16)


def _laplace(mean: float) -> Array:
    """The distribution of a rounded Laplace variable's magnitude, 0 to MAX_LIMIT, the last one and all beyond."""
    edges = np.exp(-(np.arange(MAX_LIMIT + 1) + 0.5) / mean)
    return np.concatenate(([1 - edges[0]], edges[:-2] - edges[1:-1], edges[-2:-1]))
