"""Reads the tensors of a PyTorch state dict in the legacy file format: numpy alone, and no code of the file is run."""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - only as the base of the restricted reader below
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.errors import ModelError

HEADER: Final = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e 80024de9032e")
"""The first two pickles of a legacy file: PyTorch's magic number and the version 1001."""

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
Array = NDArray[Any]


@dataclass(frozen=True)
class _View:
    """A tensor as the file describes it: a strided window on a storage that follows later in the file."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, storages: Mapping[str, Array]) -> Array:
        """A contiguous copy; an index, unlike `as_strided`, cannot leave the storage."""
        index: Any = np.full(self.shape, self.offset)
        for stride, axis in zip(self.strides, np.indices(self.shape, sparse=True), strict=True):
            index += stride * axis
        return np.asarray(storages[self.storage][index])


def _view(storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _View:
    return _View(storage, offset, shape, strides)


_NAMES: Final[dict[tuple[str, str], object]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch", "FloatStorage"): "FloatStorage",
    ("torch", "LongStorage"): "LongStorage",
}


class _Reader(pickle.Unpickler):
    """Knows the four names that a state dict needs, and refuses every other."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise ModelError(f"the weight file asks for {module}.{name}, which no state dict needs: refused") from None

    def persistent_load(self, pid: Any, /) -> str:
        _, kind, key, *_ = pid
        self.storages[key] = _DTYPES[kind]
        return str(key)


def read_state_dict(data: bytes) -> dict[str, Array]:
    """The tensors by name, contiguous, as their strides say.

    Raises ModelError when the bytes are no legacy PyTorch file, or name anything but tensors.
    """
    if not data.startswith(HEADER):
        raise ModelError("the weight file is not in PyTorch's legacy format: it starts with other bytes")
    try:
        return _read(io.BytesIO(data[len(HEADER) :]))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the weight file is damaged: {error}") from error


def _read(file: io.BytesIO) -> dict[str, Array]:
    if not _Reader(file).load()["little_endian"]:
        raise ModelError("the weight file was written on a big-endian machine, which this reader does not support")
    tensors = _Reader(file)
    views: dict[str, _View] = tensors.load()
    storages = {key: _storage(file, tensors.storages[key]) for key in _Reader(file).load()}
    return {name: view.read(storages) for name, view in views.items()}


def _storage(file: io.BytesIO, dtype: np.dtype[Any]) -> Array:
    count = int(np.frombuffer(file.read(8), "<i8")[0])
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
