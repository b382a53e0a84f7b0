"""How alike two pictures are: SSIM and PSNR, in numpy alone. Pictures are floats of 0 to 1, (H, W, C)."""

from __future__ import annotations

from math import inf, log10
from typing import Final

import numpy as np

from splitbus_runtime.engine import Array

SIGMA: Final = 1.5
RADIUS: Final = 5
"""Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13 (4), 2004: a Gaussian of 11 x 11."""

_C1, _C2 = 0.01**2, 0.03**2


def ssim(one: Array, other: Array) -> float:
    """Structural similarity, the mean over places and channels: 1 for the same picture, about 0 for a stranger's.

    Only places where the window fits; a picture smaller than the window has a smaller one.
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    mean_a, mean_b = _smoothed(a), _smoothed(b)
    var_a, var_b = _smoothed(a * a) - mean_a**2, _smoothed(b * b) - mean_b**2
    both = _smoothed(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + _C1) * (2 * both + _C2)
    return float(np.mean(top / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))))


def psnr(one: Array, other: Array) -> float:
    """Peak signal to noise in dB, of a peak of 1; infinite for the same picture."""
    error = float(np.mean(np.square(one.astype(np.float64) - other)))
    return -10 * log10(error) if error else inf


def _smoothed(picture: Array) -> Array:
    return _along(_along(picture, 0), 1)


def _along(values: Array, axis: int) -> Array:
    size = values.shape[axis]
    window = _window(min(RADIUS, (size - 1) // 2))
    inner = size - window.size + 1
    moved = np.moveaxis(values, axis, 0)
    found = sum(weight * moved[at : at + inner] for at, weight in enumerate(window))
    return np.moveaxis(np.asarray(found), 0, axis)


def _window(radius: int) -> Array:
    places = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (places / SIGMA) ** 2)
    return np.asarray(weights / weights.sum())
