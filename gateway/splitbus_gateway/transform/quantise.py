"""A transform as numbers, and the reference in numpy of what its ONNX nodes do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from splitbus_gateway.transform.basis import dct_matrix
from splitbus_gateway.transform.layout import Layout
from splitbus_runtime.engine import Array
from splitbus_schemas.codecs import SHIFTS

SETTINGS = tuple(SHIFTS.values())
"""Strengths, safest first: the step in quarter octaves, 1 being the root mean square of all coefficients."""


@dataclass(frozen=True, eq=False)
class Transform:
    """From a tensor to coefficients whose errors all cost the same, and back.

    `mean` (C,), `forward` (K, C), `inverse` (C, K) act on channels; `weight` (one value for each place in the
    transformed space, of the tensor's spatial shape) makes errors of different frequencies cost the same.
    """

    layout: Layout
    mean: Array
    forward: Array
    inverse: Array
    weight: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's coefficients."""
        return (len(self.forward), *self.weight.shape)

    @cached_property
    def matrices(self) -> tuple[Array | None, ...]:
        """The DCT along each spatial axis; None where there is none."""
        sizes = zip(self.weight.shape, self.layout.smooth, strict=True)
        return tuple(dct_matrix(size) if smooth else None for size, smooth in sizes)


def analyse(values: Array, transform: Transform) -> Array:
    """Coefficients (batch, K, *space) of a tensor, before rounding; float32."""
    found = values.astype(np.float32).transpose(transform.layout.order)
    found = _mix(transform.forward, found - _column(transform.mean, found.ndim))
    for axis, matrix in enumerate(transform.matrices, start=2):
        if matrix is not None:
            found = _along(matrix, found, axis)
    return (found * transform.weight).astype(np.float32)


def synthesise(coefficients: Array, transform: Transform) -> Array:
    """The tensor (float32) that coefficients stand for."""
    found = coefficients.astype(np.float32) / transform.weight.astype(np.float32)
    for axis, matrix in enumerate(transform.matrices, start=2):
        if matrix is not None:
            found = _along(matrix.T, found, axis)
    found = _mix(transform.inverse, found) + _column(transform.mean, found.ndim)
    return found.transpose(transform.layout.inverse).astype(np.float32)


def _mix(matrix: Array, values: Array) -> Array:
    """The matrix applied to axis 1."""
    return np.asarray(np.moveaxis(np.tensordot(matrix.astype(np.float32), values, (1, 1)), 0, 1))


def _along(matrix: Array, values: Array, axis: int) -> Array:
    return np.asarray(np.moveaxis(np.tensordot(matrix.astype(np.float32), values, (1, axis)), 0, axis))


def _column(vector: Array, rank: int) -> Array:
    return vector.astype(np.float32).reshape(-1, *(1,) * (rank - 2))
