"""A decoder from what crosses a cut back to the picture: ridge regression on neighbourhoods, in numpy alone.

Every place of the activations' grid makes the patch of the picture that it stands for, out of the principal components
of itself and its eight neighbours. Fitted in closed form, the same every time. Random relu features on top were tried:
with this many pictures they cost twice the time and found nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from splitbus_runtime.engine import Array

COMPONENTS: Final = 64
"""Of the features of one place; the ninefold of it is solved for."""

ROWS: Final = 8_000
"""Places that are fitted on, of all pictures together: some ten for each unknown of one pixel."""

PATCH: Final = 8
"""Pixels along a patch at most; coarser grids than that see a smaller picture, which is then enlarged."""

RIDGES: Final = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Of the mean energy of a feature; the one is taken that does best on a quarter of the rows, which is left out."""

_NEIGHBOURS: Final = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_HELD_OUT: Final = 4
_SPARE: Final = 3  # times as many places as are fitted on, so that they come from several pictures
_TINY: Final = 1e-6
_NEGLIGIBLE: Final = 1e-3


@dataclass(frozen=True, eq=False)
class Decoder:
    """What makes pictures (samples, H, W, C) of grids (samples, h, w, features), float32 both."""

    mean: Array
    """The pictures' mean: what somebody says who has seen nothing of this one."""
    centre: Array
    basis: Array
    weights: Array
    patch: tuple[int, int]

    def rebuild(self, grids: Array) -> Array:
        """The pictures as the decoder sees them, one after the other; not clipped."""
        return np.concatenate([self._rebuild(grid[None]) for grid in grids])

    def _rebuild(self, grid: Array) -> Array:
        _, height, width, _ = grid.shape
        values = _neighbourhoods((grid - self.centre) @ self.basis) @ self.weights
        small = _joined(values.reshape(height, width, *self.patch, -1))[None]
        return np.asarray(_resized(small, self.mean.shape[:2]) + self.mean, np.float32)


def enough(places: int) -> int:
    """Of how many pictures the decoder is fitted, where each has so many places."""
    return -(-_SPARE * ROWS // places)


def fit(grids: Array, pictures: Array, mean: Array) -> Decoder:
    """The decoder that does best, in the mean square, on these samples; `mean` is that of all pictures there are."""
    rng = np.random.default_rng(0)
    samples, height, width, _ = grids.shape
    patch = (_patch(pictures.shape[1], height), _patch(pictures.shape[2], width))
    centre, basis = _principal(grids)
    reduced = _neighbourhoods((grids - centre) @ basis).reshape(samples * height * width, -1)
    small = _resized(pictures - mean, (height * patch[0], width * patch[1]))
    wanted = _split(small, patch).reshape(len(reduced), -1)
    rows = np.sort(rng.permutation(len(reduced))[:ROWS])
    weights = _ridge(reduced[rows], wanted[rows])
    return Decoder(mean, centre, basis, weights, patch)


def _patch(pixels: int, places: int) -> int:
    return int(np.clip(round(pixels / places), 1, PATCH))


def _principal(grids: Array) -> tuple[Array, Array]:
    """The mean of the features, and the matrix that makes at most COMPONENTS uncorrelated ones of deviation 1."""
    flat = grids.reshape(-1, grids.shape[-1])
    flat = flat[:: max(1, len(flat) // ROWS)]
    centre = flat.mean(axis=0)
    spread = flat.std(axis=0)
    scale = np.where(spread > _TINY * max(float(spread.max()), _TINY), spread, np.inf)
    values, vectors = _eigen((flat - centre) / scale)
    deviations = np.sqrt(np.maximum(values, 0))
    kept = np.flatnonzero(deviations > _NEGLIGIBLE * max(float(deviations[0]), _TINY))[:COMPONENTS]
    return centre, np.asarray(vectors[:, kept] / deviations[kept] / scale[:, None], np.float32)


def _eigen(rows: Array) -> tuple[Array, Array]:
    """Variances, largest first, and directions (a column each) of centred rows; found on the shorter side."""
    count, width = rows.shape
    if width <= count:
        values, vectors = np.linalg.eigh(rows.T @ rows / count)
        return values[::-1], vectors[:, ::-1]
    values, vectors = np.linalg.eigh(rows @ rows.T / count)
    values, vectors = np.maximum(values[::-1], _TINY), vectors[:, ::-1]
    return values, rows.T @ vectors / np.sqrt(values * count)


def _neighbourhoods(grids: Array) -> Array:
    """For each place its own features and its neighbours', zeros beyond the edge; its own alone where there is but one.

    (samples, h, w, features) -> (samples, h, w, 9 * features + 1), a constant the last
    """
    _, height, width, _ = grids.shape
    one = np.ones((*grids.shape[:-1], 1), np.float32)
    if height * width == 1:
        return np.concatenate([grids, one], -1)
    padded = np.pad(grids, ((0, 0), (1, 1), (1, 1), (0, 0)))
    around = [padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in _NEIGHBOURS]
    return np.concatenate([*around, one], -1)


def _ridge(features: Array, wanted: Array) -> Array:
    held = np.arange(len(features)) * _HELD_OUT // max(len(features), 1) == _HELD_OUT - 1
    few, rest = _Sums.of(features[~held], wanted[~held]), _Sums.of(features[held], wanted[held])
    errors = [rest.error(few.solved(ridge)) for ridge in RIDGES]
    return (few + rest).solved(RIDGES[int(np.argmin(errors))])


@dataclass(frozen=True, eq=False)
class _Sums:
    """What a regression needs of its rows."""

    gram: Array
    cross: Array

    @classmethod
    def of(cls, features: Array, wanted: Array) -> _Sums:
        return cls(features.T @ features, features.T @ wanted)

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(self.gram + other.gram, self.cross + other.cross)

    def solved(self, ridge: float) -> Array:
        added = (ridge + _TINY) * float(np.trace(self.gram)) / len(self.gram) + _TINY
        return np.asarray(np.linalg.solve(self.gram + added * np.eye(len(self.gram), dtype=np.float32), self.cross))

    def error(self, weights: Array) -> float:
        """The sum of squares that is left of these rows, but for a constant."""
        return float(np.sum(weights * (self.gram @ weights - 2 * self.cross)))


def _split(pictures: Array, patch: tuple[int, int]) -> Array:
    """(samples, h * p, w * q, C) -> (samples, h, w, p, q, C)"""
    samples, height, width, colours = pictures.shape
    cells = pictures.reshape(samples, height // patch[0], patch[0], width // patch[1], patch[1], colours)
    return cells.transpose(0, 1, 3, 2, 4, 5)


def _joined(cells: Array) -> Array:
    """(h, w, p, q, C) -> (h * p, w * q, C)"""
    height, width, rows, columns, _ = cells.shape
    return cells.transpose(0, 2, 1, 3, 4).reshape(height * rows, width * columns, -1)


def _resized(pictures: Array, size: tuple[int, int]) -> Array:
    """Pictures (samples, H, W, C) of another size, by a triangle as wide as the coarser grid's step."""
    down, across = _resampling(pictures.shape[1], size[0]), _resampling(pictures.shape[2], size[1])
    found = np.tensordot(down, pictures, (1, 1)).swapaxes(0, 1)
    return np.asarray(np.tensordot(across, found, (1, 2)).transpose(1, 2, 0, 3), np.float32)


def _resampling(before: int, after: int) -> Array:
    """The matrix (after, before) that resamples a line; the identity when nothing changes."""
    step = before / after
    places = (np.arange(after) + 0.5) * step - 0.5
    weights = np.maximum(1 - np.abs(places[:, None] - np.arange(before)) / max(step, 1.0), 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
