"""How strongly a model's answer reacts to errors in a tensor: by channel, and by spatial frequency."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import TypeAlias

import numpy as np

from splitbus_gateway.transform.basis import frequencies
from splitbus_gateway.transform.quantise import Transform, analyse, synthesise
from splitbus_runtime.engine import Array

Answer: TypeAlias = Callable[[Array], Array]
"""The model's answers (batch, anything) for the tensor at the cut, its axis 0 the batch; scaled so that 1 is large."""

BANDS = (0.0, 0.1, 0.25, 0.5)  # where bands of spatial frequency begin; the first is a block's mean alone
_AMOUNT = 0.1  # of the tensor's root mean square: like a codec's errors, and small enough to add up
_BAND_AMOUNT = 0.3  # the same for a band, which holds less of the signal
_SHRINK = 0.7  # share of the channels' cross terms that is taken for noise of the measurement
_FLOOR = 1e-3  # of the mean: the least sensitivity of a channel, so that none is lost altogether
_LEAST_WEIGHT = 0.15  # of a band, relative to the largest


def channel_weight(values: Array, channel: int, answer: Answer) -> Array:
    """The (C, C) matrix M by which an error e of the channels moves the answer: E|change|^2 = e' M e at each place.

    The same noise is put into one channel after the other, and the changes' products are M. Positive definite; the
    identity when the answer does not react at all.
    """
    rng = np.random.default_rng(0)
    count = values.shape[channel]
    scale = _rms(values)
    expected = answer(values)
    places = [1 if axis == channel else size for axis, size in enumerate(values.shape)]
    noise = np.moveaxis(rng.standard_normal(places) * scale * _AMOUNT, channel, -1)[..., 0]
    changes = []
    for index in range(count):
        disturbed = np.moveaxis(values.astype(np.float32), channel, -1)
        disturbed = disturbed.copy()
        disturbed[..., index] += noise
        changes.append((answer(like(np.moveaxis(disturbed, -1, channel), values)) - expected).ravel())
    rows = np.stack(changes).astype(np.float64)
    gram = rows @ rows.T / (noise.size * (scale * _AMOUNT) ** 2 or 1.0)
    own = np.diag(np.diag(gram))
    mean = float(np.diag(gram).mean())
    if not (np.isfinite(mean) and mean > 0):
        return np.eye(count)
    return np.asarray((1 - _SHRINK) * gram + _SHRINK * own + _FLOOR * mean * np.eye(count))


def band_weight(values: Array, transform: Transform, answer: Answer) -> Array:
    """The weight of each place of the transformed space: root of how the answer reacts to noise in its band."""
    numbers = [
        np.searchsorted(BANDS, frequencies(size), side="right") - 1 if smooth else np.zeros(size, int)
        for size, smooth in zip(transform.weight.shape, transform.layout.smooth, strict=True)
    ]
    bands = list(product(*(range(int(number.max()) + 1) for number in numbers)))
    weight = np.ones(transform.weight.shape)
    if len(bands) < 2:
        return weight
    rng = np.random.default_rng(1)
    coefficients = analyse(values, transform)
    scale = _BAND_AMOUNT * _rms(coefficients)
    expected = answer(values)
    reaction: dict[tuple[int, ...], float] = {}
    for band in bands:
        places = np.ix_(*(number == wanted for number, wanted in zip(numbers, band, strict=True)))
        noise = np.zeros(coefficients.shape, np.float32)
        mask = np.zeros(weight.shape, bool)
        mask[places] = True
        noise[..., mask] = rng.standard_normal((*noise.shape[:2], int(mask.sum()))) * scale
        error = synthesise(noise, transform) - synthesise(np.zeros_like(noise), transform)
        change = answer(like(values.astype(np.float32) + error, values)) - expected
        energy = float(noise.size * scale**2) * float(mask.mean()) or 1.0
        reaction[band] = float(np.sum(np.square(change, dtype=np.float64))) / energy
        weight[places] = reaction[band]
    if not (np.isfinite(weight).all() and weight.max() > 0):
        return np.ones_like(weight)
    root = np.sqrt(weight / weight.max())
    return np.asarray(np.maximum(_symmetric(root, transform), _LEAST_WEIGHT))


def _symmetric(weight: Array, transform: Transform) -> Array:
    """Both directions of a square picture alike, which halves the noise of the measurement."""
    if weight.ndim == 2 and weight.shape[0] == weight.shape[1] and all(transform.layout.smooth):
        return np.asarray((weight + weight.T) / 2)
    return weight


def like(changed: Array, original: Array) -> Array:
    """Float values in the type of the tensor at the cut."""
    if original.dtype.kind == "f":
        return changed.astype(original.dtype)
    bounds = np.iinfo(original.dtype)
    return np.clip(np.rint(changed), bounds.min, bounds.max).astype(original.dtype)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if prod(values.shape) else 0.0
