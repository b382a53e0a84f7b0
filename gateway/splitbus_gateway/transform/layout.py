"""How a tensor is laid out: which axis holds the channels, which axes are space, and what does not fit a transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_runtime.engine import Array

MIN_ELEMENTS = 1024  # below, the frame's header and the packet's weigh as much as is saved
MAX_CHANNELS = 512  # two matrices of 1 MB in the slices, and a probe of the model for each channel
MAX_LENGTH = 512  # of a spatial axis: its transform is a matrix
_RANKS = (2, 3, 4)
_SMOOTH = 0.3  # neighbours on an axis less alike than this gain nothing from a transform along it
_DTYPES = {"float16", "float32", "float64", "int8", "uint8"}


@dataclass(frozen=True)
class Layout:
    """Axes of a tensor whose axis 0 is the batch: `channel`, and `space` in order; `smooth`: which gain by a DCT."""

    channel: int
    space: tuple[int, ...]
    smooth: tuple[bool, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """The transpose that makes (batch, channel, *space)."""
        return (0, self.channel, *self.space)

    @property
    def inverse(self) -> tuple[int, ...]:
        """The transpose back."""
        return tuple(int(axis) for axis in np.argsort(self.order))


def objection(tensor: TensorSpec) -> str:
    """Why the tensor cannot be transformed, "" when it can: it is then sent by a simpler codec."""
    if tensor.dtype not in _DTYPES:
        return f"{tensor.name} has type {tensor.dtype}"
    if len(tensor.shape) not in _RANKS:
        return f"{tensor.name} has {len(tensor.shape)} dimensions"
    if not all(isinstance(dim, int) for dim in tensor.shape[1:]):
        return f"{tensor.name} has the symbolic shape {list(tensor.shape)}"
    if prod(tensor.sizes[1:]) < MIN_ELEMENTS:
        return f"{tensor.name} has {prod(tensor.sizes[1:])} elements only"
    if min(tensor.sizes[1], tensor.sizes[-1]) > MAX_CHANNELS or max(tensor.sizes[2:], default=0) > MAX_LENGTH:
        return f"{tensor.name} has too many channels: shape {list(tensor.sizes)}"
    return ""


def find_layout(values: Array) -> Layout:
    """The layout of float activations (batch first): space is where neighbours are alike, channels where they are not.

    Only the first and the last axis are taken for channels, as all frameworks do.
    """
    candidates = sorted({1, values.ndim - 1})
    alike = {axis: _likeness(values, axis) for axis in range(1, values.ndim)}
    channel = min(candidates, key=lambda axis: (values.shape[axis] > MAX_CHANNELS, alike[axis]))
    space = tuple(axis for axis in range(1, values.ndim) if axis != channel)
    return Layout(channel, space, tuple(alike[axis] > _SMOOTH and values.shape[axis] <= MAX_LENGTH for axis in space))


def _likeness(values: Array, axis: int) -> float:
    """Correlation of neighbours along an axis, once each channel-and-place's mean over the samples is gone."""
    centred = values - values.mean(axis=0, keepdims=True)
    first, second = _ends(centred, axis)
    power = float(np.sqrt(np.mean(first**2) * np.mean(second**2))) if first.size else 0.0
    return float(np.mean(first * second)) / power if power else 0.0


def _ends(values: Array, axis: int) -> Sequence[Array]:
    moved = np.moveaxis(values, axis, 0)
    return moved[:-1], moved[1:]
