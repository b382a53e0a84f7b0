"""Small slices in a blob store, without a gateway: a graph, weights as blobs, and a manifest by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - the reference
from numpy.typing import NDArray
from onnx import TensorProto, helper

from splitbus_runtime.store import BlobStore
from splitbus_schemas.ids import sha256
from splitbus_schemas.messages import SliceManifest, TensorSpec, WeightRef

Array = NDArray[Any]
MODEL = sha256(b"a model")


@dataclass(frozen=True)
class SmallSlice:
    """A slice as blobs, and the whole of it for onnxruntime alone."""

    id: str
    blobs: Mapping[str, bytes]
    graph: str
    weights: Sequence[str]
    whole: bytes

    def put(self, store: BlobStore) -> None:
        for blob in self.blobs.values():
            store.put(blob)

    def put_in(self, folder: Path) -> SmallSlice:
        self.put(BlobStore(folder))
        return self

    def reference(self, feeds: Mapping[str, Array]) -> list[Array]:
        """What plain onnxruntime answers."""
        outputs: list[Array] = ort.InferenceSession(self.whole).run(None, dict(feeds))
        return outputs


def make_slice(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | None]],
    outputs: Mapping[str, Sequence[int | None]],
    final: Sequence[str] = (),
    weights: Mapping[str, Array] | None = None,
    span: tuple[int, int] = (0, 1),
) -> SmallSlice:
    """A float32 slice whose weights are external, as a gateway would cut it."""
    arrays = weights or {}
    initializers = [_external(name, array) for name, array in arrays.items()]
    graph = helper.make_graph(list(nodes), "slice", _values(inputs), _values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    graph_bytes = model.SerializeToString()
    refs = [_weight(name, array) for name, array in arrays.items()]
    manifest = SliceManifest(
        model=MODEL,
        first=span[0],
        last=span[1],
        codec_in="raw",
        codec_out="raw",
        graph=sha256(graph_bytes),
        graph_bytes=len(graph_bytes),
        inputs=_specs(inputs, ()),
        outputs=_specs(outputs, final),
        weights=refs,
    ).to_json()
    contents = (graph_bytes, manifest, *(array.tobytes() for array in arrays.values()))
    blobs = {sha256(data): data for data in contents}
    return SmallSlice(
        sha256(manifest), blobs, sha256(graph_bytes), [ref.sha256 for ref in refs], whole.SerializeToString()
    )


def scale_slice(size: int = 8, *, factor: float = 3.0, final: bool = True) -> SmallSlice:
    """y = x * w, with a weight of its own."""
    weight = np.full((size,), factor, np.float32)
    return make_slice(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        inputs={"x": [size]},
        outputs={"y": [size]},
        final=["y"] if final else [],
        weights={"w": weight},
        span=(1, 2) if final else (0, 1),
    )


def sum_slice(size: int) -> SmallSlice:
    """total = sum(x): much in, little out."""
    return make_slice(
        [helper.make_node("ReduceSum", ["x"], ["total"], keepdims=1)],
        inputs={"x": [size]},
        outputs={"total": [1]},
        final=["total"],
    )


def add_one_slice() -> SmallSlice:
    """z = y + one."""
    return make_slice(
        [helper.make_node("Add", ["y", "one"], ["z"])],
        inputs={"y": [8]},
        outputs={"z": [8]},
        final=["z"],
        weights={"one": np.ones((8,), np.float32)},
        span=(2, 3),
    )


def slow_slice(products: int, size: int = 256) -> SmallSlice:
    """A chain of matrix products; each takes some 0.5 ms."""
    weight = (np.eye(size) * 0.999).astype(np.float32)
    names = ["x", *(f"h{i}" for i in range(products - 1)), "y"]
    return make_slice(
        [helper.make_node("MatMul", [a, "w"], [b]) for a, b in itertools.pairwise(names)],
        inputs={"x": [size, size]},
        outputs={"y": [size, size]},
        final=["y"],
        weights={"w": weight},
    )


def _weight(name: str, array: Array) -> WeightRef:
    data = array.tobytes()
    return WeightRef(name=name, dtype=array.dtype.name, shape=list(array.shape), sha256=sha256(data), bytes=len(data))


def _external(name: str, array: Array) -> TensorProto:
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _values(shapes: Mapping[str, Sequence[int | None]]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]


def _specs(shapes: Mapping[str, Sequence[int | None]], final: Sequence[str]) -> list[TensorSpec]:
    return [
        TensorSpec(name=name, dtype="float32", shape=list(shape), final=name in final) for name, shape in shapes.items()
    ]
