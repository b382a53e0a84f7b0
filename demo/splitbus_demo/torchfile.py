"""Reads the tensors of a PyTorch state dict in the legacy file format, with numpy alone and without running its code."""

from __future__ import annotations

import io
import pickle  # noqa: S403, TID251 - only as the base of the restricted reader below
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from splitbus_schemas.errors import ModelError

MAGIC: Final = 0x1950A86A20F9469CFC6C
"""The first pickle of a legacy file (`torch.serialization.MAGIC_NUMBER`)."""
PROTOCOL: Final = 1001

_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
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


class _Reader(pickle.Unpickler):
    """Knows the four names that a state dict needs, and refuses every other."""

    _NAMES: Final = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _view,
        ("torch", "FloatStorage"): "FloatStorage",
        ("torch", "LongStorage"): "LongStorage",
    }

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return self._NAMES[module, name]
        except KeyError:
            raise ModelError(f"the weight file asks for {module}.{name}, which no state dict needs: refused") from None

    def persistent_load(self, pid: Any, /) -> str:
        _, kind, key, *_ = pid
        self.dtypes[key] = _DTYPES[kind]
        return str(key)


def read_state_dict(data: bytes) -> dict[str, Array]:
    """The tensors by name, contiguous, as their strides say.

    Raises ModelError when the bytes are no legacy PyTorch file, or name anything but tensors.
    """
    try:
        return _read(io.BytesIO(data))
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the weight file is no state dict in PyTorch's legacy format: {error}") from error


def _read(file: io.BytesIO) -> dict[str, Array]:
    if (_Reader(file).load(), _Reader(file).load()) != (MAGIC, PROTOCOL):
        raise ValueError("wrong magic number or protocol")
    _Reader(file).load()  # the writer's byte order and integer sizes; the digest of the one file we read settles both
    tensors = _Reader(file)
    views: dict[str, _View] = tensors.load()
    storages = {key: _storage(file, tensors.dtypes[key]) for key in _Reader(file).load()}
    return {name: view.read(storages) for name, view in views.items()}


def _storage(file: io.BytesIO, dtype: np.dtype[Any]) -> Array:
    count = int(np.frombuffer(file.read(8), "<i8")[0])
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
