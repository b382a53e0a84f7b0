"""Inputs on which a model is measured: those a user gives, pictures among them, or smooth random ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np

from splitbus_gateway.graph import TensorSpec, load_feed
from splitbus_gateway.picture_samples import SUFFIXES, frame_input, read_picture
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ModelError

Feed: TypeAlias = Mapping[str, Array]
T = TypeVar("T")

_ARRAYS: Final = frozenset({".npy", ".npz"})
_GRID: Final = 8  # a picture's large forms: so many random values along each side, the rest interpolated
_NOISE: Final = 0.05


Given: TypeAlias = Path | Sequence[Array | Feed]
"""An .npz or .npy file, a folder of such files or of pictures, or arrays or feeds.

An array may hold one input, or many along its first axis.
"""


def read_samples(source: Given, inputs: Sequence[TensorSpec], limit: int) -> list[Feed]:
    """The feeds given: at most `limit`, evenly chosen, of those in a file or folder.

    Raises ModelError for one that does not fit the model.
    """
    if isinstance(source, Path) and (pictures := chosen_pictures(source, limit)):
        spec = frame_input(inputs, str(source))
        return [{spec.name: read_picture(path, spec)} for path in pictures]
    feeds = [feed for entry in _entries(source, inputs) for feed in _feeds(entry, inputs, _what(source))]
    if not feeds:
        raise ModelError(f"{_what(source)} hold no input: give at least one")
    return _chosen(feeds, limit) if isinstance(source, Path) else feeds


def chosen_rows(count: int, limit: int) -> list[int]:
    """Which of so many samples are taken: at most `limit`, evenly spread."""
    return [int(row) for row in np.linspace(0, count - 1, min(limit, count)).round()]


def chosen_pictures(folder: Path, limit: int) -> list[Path]:
    """The pictures in a folder, or in folders in it, that are taken of it; none for anything else."""
    return _chosen(_pictures(folder), limit) if folder.is_dir() else []


def _chosen(entries: Sequence[T], limit: int) -> list[T]:
    return [entries[row] for row in chosen_rows(len(entries), limit)]


def _pictures(folder: Path) -> list[Path]:
    found = _files(folder, SUFFIXES)
    return found or sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)


def sample_shapes(source: Given, inputs: Sequence[TensorSpec]) -> dict[str, tuple[int, ...]]:
    """The shapes that the samples give inputs of symbolic size; one at a time where the first axis is symbolic."""
    entries = _entries(source, inputs)
    shapes = {}
    for spec in inputs:
        rank = len(spec.shape)
        if entries and rank > 1 and any(not isinstance(dim, int) for dim in spec.shape[1:]):
            entry = entries[0]
            array = np.asarray(entry[spec.name] if isinstance(entry, Mapping) and spec.name in entry else entry)
            if array.ndim in (rank, rank + 1):
                shapes[spec.name] = (spec.sizes[0], *array.shape[1 - rank :])
    return shapes


def _entries(source: Given, inputs: Sequence[TensorSpec]) -> Sequence[Array | Feed]:
    if not isinstance(source, Path):
        return source
    if not source.is_dir():
        return [_read(source, inputs)]
    if _pictures(source):
        return []  # pictures are made to fit, they decide nothing
    files = _files(source, _ARRAYS)
    if not files:
        kinds = ", ".join(sorted({*_ARRAYS, *SUFFIXES}))
        raise ModelError(f"{source} holds no file of {kinds}: write inputs with numpy.save, or give pictures")
    return [_read(path, inputs) for path in files]


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)


def _what(source: Given) -> str:
    return str(source) if isinstance(source, Path) else "the samples"


def synthetic_samples(inputs: Sequence[TensorSpec], count: int) -> list[Feed]:
    """Random inputs with the large smooth forms of pictures, which plain noise does not have."""
    rng = np.random.default_rng(0)
    return [{spec.name: _synthetic(spec, rng) for spec in inputs} for _ in range(count)]


def _read(path: Path, inputs: Sequence[TensorSpec]) -> Array | Feed:
    if path.suffix != ".npy":
        return load_feed(path)
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} is not an .npy file of {inputs[0].name}: write one with numpy.save") from error
    return array


def _feeds(entry: Array | Feed, inputs: Sequence[TensorSpec], what: str) -> list[Feed]:
    if not isinstance(entry, Mapping):
        if len(inputs) != 1:
            names = ", ".join(spec.name for spec in inputs)
            raise ModelError(f"{what} are bare arrays, the model has inputs {names}: give an .npz that names them")
        entry = {inputs[0].name: entry}
    missing = [spec.name for spec in inputs if spec.name not in entry]
    if missing:
        raise ModelError(f"{what} hold {', '.join(entry) or 'nothing'}, but no input {missing[0]}")
    rows = {spec.name: _rows(np.asarray(entry[spec.name]), spec, what) for spec in inputs}
    counts = {len(row) for row in rows.values()}
    if len(counts) > 1:
        raise ModelError(f"{what} hold {' and '.join(map(str, sorted(counts)))} values for inputs that belong together")
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def _rows(array: Array, spec: TensorSpec, what: str) -> list[Array]:
    """The inputs in an array that holds one, a stack of them, or several batches of them in a row."""
    if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise ModelError(f"{what} give input {spec.name} as {array.dtype}, the model takes {spec.dtype}")
    array = array.astype(spec.dtype, copy=False)
    if array.shape in (spec.sizes, spec.sizes[1:] if spec.sizes[:1] == (1,) else None):
        return [array.reshape(spec.sizes)]
    if array.ndim and array.shape[1:] == spec.sizes:
        return list(array)
    batch = spec.sizes[0] if spec.sizes else 1
    if array.ndim and batch and not len(array) % batch:
        parts = np.split(array, len(array) // batch) if len(array) else []
        if all(part.shape == spec.sizes for part in parts):
            return parts
    raise ModelError(f"{what} give input {spec.name} the shape {list(array.shape)}, the model takes {list(spec.sizes)}")


def _synthetic(spec: TensorSpec, rng: np.random.Generator) -> Array:
    if spec.dtype == "bool" or (not spec.is_float and spec.dtype != "uint8"):
        return rng.integers(0, 2, spec.sizes).astype(spec.dtype)  # they may be indices
    values = _smooth(spec.sizes, rng)
    if spec.dtype == "uint8":
        values = np.clip(values * 50 + 127, 0, 255)
    return values.astype(spec.dtype)


def _smooth(sizes: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Values of mean 0 and deviation near 1, interpolated along each long axis."""
    grid = tuple(min(size, _GRID) for size in sizes)
    values: Array = rng.standard_normal(grid)
    for axis, size in enumerate(sizes):
        if size > _GRID:
            values = _stretched(values, axis, size)
    deviation = float(values.std()) if values.size > 1 else 0.0
    return values / (deviation or 1.0) + _NOISE * rng.standard_normal(sizes)


def _stretched(values: Array, axis: int, size: int) -> Array:
    places = np.linspace(0, values.shape[axis] - 1, size)
    below = np.minimum(places.astype(int), values.shape[axis] - 2)
    share = (places - below).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    stretched: Array = values.take(below, axis) * (1 - share) + values.take(below + 1, axis) * share
    return stretched
