"""Weights as references to bytes in a model's files, so that a graph can be handled without them.

A weight is an initializer, or the value of a Constant node, of more than INLINE_BYTES and of a type that numpy has.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from splitbus_gateway.graph.tensors import ONNX_DTYPES, WIRE_DTYPES
from splitbus_schemas.errors import ModelError

INLINE_BYTES = 1024  # below this, a reference and a blob of its own cost more than the bytes
LOCATION = "weights"  # the external-data location in slices: values are given by name, no such file is read
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """One of a model's files: its name relative to the model's folder, its content's hash and size."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Weight:
    """A weight's bytes (little endian, C order), either at `offset` in `file` or, where `file` is None, in `data`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path | None
    offset: int
    data: bytes = field(default=b"", repr=False)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @cached_property
    def sha256(self) -> str:
        """The hash of the bytes: the name of the weight's blob. Computed when first asked for."""
        digest = hashlib.sha256()
        for chunk in self._chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def read(self) -> bytes:
        """All the bytes. Raises ModelError when the file has gone or has shrunk."""
        return b"".join(self._chunks())

    def array(self) -> NDArray[Any]:
        """The weight as an array, read-only and mapped from the file where its alignment allows that."""
        if self.file is None or self.offset % np.dtype(self.dtype).itemsize:
            return np.frombuffer(self.read(), self.dtype).reshape(self.shape)
        try:
            return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise self._unreadable() from error

    def stub(self) -> TensorProto:
        """The initializer that stands for this weight in a graph."""
        tensor = TensorProto(name=self.name, data_type=ONNX_DTYPES[self.dtype], dims=self.shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=LOCATION)
        return tensor

    def _chunks(self) -> Iterator[bytes]:
        if self.file is None:
            yield self.data
            return
        left = self.nbytes
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                while left and (chunk := file.read(min(left, _CHUNK))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise self._unreadable() from error
        if left:
            raise self._unreadable()

    def _unreadable(self) -> ModelError:
        return ModelError(f"weight {self.name} can no longer be read from {self.file}: put the file back as it was")


def take_weights(proto: ModelProto, path: Path) -> tuple[dict[str, Weight], tuple[ModelFile, ...]]:
    """Replace the weights in `proto` by stubs; gives the weights by name, and the model's files, the main one first.

    Weights in Constant nodes become initializers. External data that is no weight (small, of a type that packets do
    not carry, or inside a subgraph) is read into `proto`.
    Raises ModelError for external data that is missing, too short, or outside the model's folder.
    """
    files = (_file(path, path.name), *(_file(file, name) for name, file in external_files(proto, path).items()))
    finder = _Finder(path)
    weights: dict[str, Weight] = {}
    constants: list[int] = []
    for index, node in enumerate(proto.graph.node):
        value = _constant_value(node)
        if value is not None and (weight := finder.weight(node.output[0], value)):
            weights[weight.name] = weight
            constants.append(index)
        else:
            _inline(_node_tensors(node), path)
    for tensor in proto.graph.initializer:
        if weight := finder.weight(tensor.name, tensor):
            weights[weight.name] = weight
            tensor.CopyFrom(weight.stub())
        else:
            _inline([tensor], path)
    _inline(_other_tensors(proto), path)
    for index in reversed(constants):
        proto.graph.initializer.append(weights[proto.graph.node[index].output[0]].stub())
        del proto.graph.node[index]
    return weights, files


def external_files(proto: ModelProto, path: Path) -> dict[str, Path]:
    """The files of the model's external data by name. Raises ModelError for one that is missing or lies elsewhere."""
    names = sorted({_location(tensor) for tensor in _tensors(proto) if _is_external(tensor)})
    return {name: _resolve(path, name) for name in names}


class _Finder:
    """Finds where a tensor's bytes lie, going forward through the main file as the tensors do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0

    def weight(self, name: str, tensor: TensorProto) -> Weight | None:
        dtype = WIRE_DTYPES.get(tensor.data_type, "")
        shape = tuple(tensor.dims)
        if not dtype or prod(shape) * np.dtype(dtype).itemsize <= INLINE_BYTES:
            return None
        if _is_external(tensor):
            file, offset, _ = _extent(tensor, self._path)
            return Weight(name, dtype, shape, file, offset)
        data = _raw(tensor)
        offset = self._find(data) if tensor.HasField("raw_data") else -1
        if offset < 0:
            return Weight(name, dtype, shape, None, 0, data)
        return Weight(name, dtype, shape, self._path, offset)

    def _find(self, data: bytes) -> int:
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            offset = view.find(data, self._end)
            if offset < 0:
                offset = view.find(data)
        if offset >= 0:
            self._end = offset + len(data)
        return offset


def _constant_value(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"}:
        return None
    return next((a.t for a in node.attribute if a.name == "value" and a.type == AttributeProto.TENSOR), None)


def _raw(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return tensor.raw_data
    return numpy_helper.to_array(tensor).tobytes()


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _location(tensor: TensorProto) -> str:
    return _entries(tensor).get("location", "")


def _resolve(path: Path, location: str) -> Path:
    """The external data file `location`, which must lie in the model's folder (or, for links, where the model does)."""
    file = path.parent / location
    folders = (path.parent.resolve(), path.resolve().parent)
    if not location or Path(location).is_absolute() or not any(map(file.resolve().is_relative_to, folders)):
        raise ModelError(f"{path} keeps weights in {location!r}, outside its own folder: move that file beside it")
    if not file.is_file():
        raise ModelError(f"{path} keeps weights in {location}, which is not there: put it beside the model")
    return file


def _extent(tensor: TensorProto, path: Path) -> tuple[Path, int, int]:
    """File, offset and length of an external tensor, checked against the file and the tensor's own shape."""
    entries = _entries(tensor)
    file = _resolve(path, entries.get("location", ""))
    size = file.stat().st_size
    dtype = WIRE_DTYPES.get(tensor.data_type, "")
    expected = prod(tensor.dims) * np.dtype(dtype).itemsize if dtype else None
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", size - offset if expected is None else expected))
    except ValueError as error:
        raise ModelError(f"{path} gives weight {tensor.name} a place in {file.name} that is not a number") from error
    if offset < 0 or length < 0 or (expected is not None and length != expected):
        raise ModelError(f"{path} gives weight {tensor.name} {length} bytes at {offset}, its shape needs {expected}")
    if offset + length > size:
        raise ModelError(f"{file} is too short: weight {tensor.name} ends at {offset + length}, the file at {size}")
    return file, offset, length


def _inline(tensors: Iterable[TensorProto], path: Path) -> None:
    for tensor in filter(_is_external, tensors):
        file, offset, length = _extent(tensor, path)
        with file.open("rb") as source:
            source.seek(offset)
            tensor.raw_data = source.read(length)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")


def _file(path: Path, name: str) -> ModelFile:
    with path.open("rb") as file:
        return ModelFile(name, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        yield from _node_tensors(node)
    yield from _other_tensors(proto)


def _other_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Those outside the main graph's initializers and nodes."""
    for sparse in proto.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from graph.initializer
            for inner in graph.node:
                yield from _node_tensors(inner)
