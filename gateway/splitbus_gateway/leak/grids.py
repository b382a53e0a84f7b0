"""Pictures and activations as arrays that a decoder can be fitted between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.samples import Feed
from splitbus_gateway.transform.layout import find_layout
from splitbus_runtime.engine import Array

SMALLEST: Final = 8
"""A side below this is no picture's."""

_COLOURS: Final = {1, 3}
_KINDS: Final = "fiu"


@dataclass(frozen=True)
class Picture:
    """An input of a model that is a picture: its name, and where in one sample its channels lie."""

    name: str
    channels_first: bool

    def shown(self, feeds: Sequence[Feed]) -> Array:
        """The pictures as they are, float32 (samples, H, W, C); a uint8 picture's values of 0 to 255 become 0 to 1."""
        raw = np.concatenate([np.asarray(feed[self.name]).reshape(1, *self._shape(feed)) for feed in feeds])
        placed = np.moveaxis(raw, 1, -1) if self.channels_first else raw
        return placed.astype(np.float32) / 255 if raw.dtype == np.uint8 else placed.astype(np.float32)

    def _shape(self, feed: Feed) -> tuple[int, ...]:
        return np.asarray(feed[self.name]).shape[-3:]


def find_picture(inputs: Sequence[TensorSpec]) -> Picture | None:
    """The first input that looks like one picture: three axes behind a batch of one, one or three channels."""
    for spec in inputs:
        sizes = spec.sizes[-3:]
        if len(sizes) != 3 or prod(spec.sizes) != prod(sizes) or np.dtype(spec.dtype).kind not in _KINDS:
            continue
        for first in (False, True):
            channels, sides = (sizes[0], sizes[1:]) if first else (sizes[2], sizes[:2])
            if channels in _COLOURS and min(sides) >= SMALLEST:
                return Picture(spec.name, first)
    return None


def as_grid(tensors: Mapping[str, Sequence[Array]], picture: tuple[int, int]) -> Array:
    """What crosses a cut, float32 (samples, h, w, features): every tensor on the grid of the finest.

    `tensors` gives each tensor's values by sample. What has no place in the picture stands at every place of it.
    """
    grids = [_grid(np.concatenate([_batched(array) for array in arrays]), picture) for arrays in tensors.values()]
    height, width = max(grid.shape[1] for grid in grids), max(grid.shape[2] for grid in grids)
    return np.concatenate([_spread(grid, height, width) for grid in grids], axis=-1)


def _batched(array: Array) -> Array:
    return array if array.ndim and array.shape[0] == 1 else array[None]


def _grid(values: Array, picture: tuple[int, int]) -> Array:
    values = values.astype(np.float32)
    if values.ndim == 4:
        return np.moveaxis(values, find_layout(values).channel, -1)
    if values.ndim == 3:
        tokens = np.moveaxis(values, find_layout(values).channel, -1)
        if sides := _sides(tokens.shape[1], picture):
            return tokens[:, -prod(sides) :].reshape(len(values), *sides, -1)
    return values.reshape(len(values), 1, 1, -1)


def _sides(count: int, picture: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of so many tokens, the first of which may stand for the whole picture."""
    for tokens in (count, count - 1):
        rows = round((tokens * picture[0] / picture[1]) ** 0.5)
        if rows > 1 and tokens % rows == 0 and rows * picture[1] == tokens // rows * picture[0]:
            return rows, tokens // rows
    return None


def _spread(grid: Array, height: int, width: int) -> Array:
    rows = np.arange(height) * grid.shape[1] // height
    columns = np.arange(width) * grid.shape[2] // width
    return grid[:, rows][:, :, columns]
