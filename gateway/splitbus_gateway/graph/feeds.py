"""Inputs to try a model on: random ones, and those a user gives."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ModelError


def random_feed(inputs: Iterable[TensorSpec], seed: int = 0) -> dict[str, Array]:
    """Standard normal numbers, and 0 or 1 where a model wants integers (they may be indices), by input name."""
    rng = np.random.default_rng(seed)
    return {spec.name: _random(spec, rng) for spec in inputs}


def ones_feed(inputs: Iterable[TensorSpec]) -> dict[str, Array]:
    """Ones, by input name: also as loop counts, indices and conditions."""
    return {spec.name: np.ones(spec.sizes, spec.dtype) for spec in inputs}


def load_feed(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name. Raises ModelError when it is none."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path} is not an .npz file of input arrays: write one with numpy.savez") from error


def _random(spec: TensorSpec, rng: np.random.Generator) -> Array:
    if spec.is_float:
        return rng.standard_normal(spec.sizes, np.float32).astype(spec.dtype)
    return rng.integers(0, 2, spec.sizes).astype(spec.dtype)
