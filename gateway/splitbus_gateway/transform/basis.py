"""The two orthonormal transforms: a DCT in blocks along an axis of any length, and a weighted KLT over channels."""

from __future__ import annotations

from math import ceil

import numpy as np

from splitbus_runtime.engine import Array

MAX_BLOCK = 14  # longer blocks gain under 1 % on features, and ring around what moves


def block_sizes(length: int, *, longest: int = MAX_BLOCK) -> list[int]:
    """As few blocks as `longest` allows, as equal as can be: no length needs padding."""
    count = ceil(length / longest)
    return [length // count + (index < length % count) for index in range(count)]


def dct_matrix(length: int, *, longest: int = MAX_BLOCK) -> Array:
    """Orthonormal, block-diagonal (length, length), float64: row r makes coefficient r of its block."""
    matrix = np.zeros((length, length))
    start = 0
    for size in block_sizes(length, longest=longest):
        end = start + size
        matrix[start:end, start:end] = _dct(size)
        start = end
    return matrix


def frequencies(length: int, *, longest: int = MAX_BLOCK) -> Array:
    """What each coefficient of `dct_matrix` stands for: 0 for a block's mean, towards 1 for its finest detail."""
    return np.concatenate([np.arange(size) / size for size in block_sizes(length, longest=longest)])


def _dct(size: int) -> Array:
    place, row = np.arange(size), np.arange(size)[:, None]
    matrix = np.cos(np.pi * (2 * place + 1) * row / (2 * size)) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)


def weighted_klt(covariance: Array, weight: Array) -> tuple[Array, Array]:
    """The transform F (K, C) and its inverse (C, K) that decorrelate W^1/2 x, largest component first.

    An error e in x costs e' W e; an error d in F x then costs |d|^2 in whichever component it lies, so that one step
    for all of them is right. `weight` must be positive definite.
    """
    values, vectors = np.linalg.eigh(weight)
    root = (vectors * np.sqrt(values)) @ vectors.T
    back = (vectors / np.sqrt(values)) @ vectors.T
    _, components = np.linalg.eigh(root @ covariance @ root)
    components = components[:, ::-1]
    return components.T @ root, back @ components
