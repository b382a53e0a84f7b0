"""SSIM and PSNR against scikit-image's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data, metrics

from splitbus_gateway.leak.likeness import psnr, ssim
from splitbus_runtime.engine import Array

DATA: Any = data  # what scikit-image exports has no types
METRICS: Any = metrics


def noisy(picture: Array, amount: float) -> Array:
    noise = np.random.default_rng(0).standard_normal(picture.shape) * amount
    return np.clip(picture + noise, 0, 1)


@pytest.mark.parametrize("amount", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("colours", [1, 3])
def test_photographs_as_scikit_image_has_them(amount: float, colours: int) -> None:
    picture = DATA.astronaut()[:160, 100:220, :colours] / 255
    other = noisy(picture, amount)
    expected = METRICS.structural_similarity(
        picture, other, data_range=1.0, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False
    )
    assert ssim(picture, other) == pytest.approx(expected, abs=1e-9)
    assert psnr(picture, other) == pytest.approx(METRICS.peak_signal_noise_ratio(picture, other, data_range=1.0))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31))
def test_of_any_size_a_picture_is_like_itself_and_likeness_is_mutual(height: int, width: int, seed: int) -> None:
    one, other = np.random.default_rng(seed).uniform(size=(2, height, width, 3))
    assert ssim(one, one) == pytest.approx(1)
    assert psnr(one, one) == math.inf
    assert ssim(one, other) == pytest.approx(ssim(other, one))
    assert -1 <= ssim(one, other) < 1
