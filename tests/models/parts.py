"""What the models of the corpus are built from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Dims = Sequence[int | str | None]

node = helper.make_node


def value(name: str, shape: Dims, dtype: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name: str, *shape: int, dtype: str = "float32", seed: int = 0) -> TensorProto:
    """Random numbers that keep a layer's output about as large as its input."""
    fan_in = int(np.prod(shape[1:])) or 1
    values = np.random.default_rng([seed, *name.encode()]).standard_normal(shape) / np.sqrt(fan_in)
    return numpy_helper.from_array(values.astype(dtype), name)


def constant(name: str, values: Any, dtype: str = "float32") -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Sequence[TensorProto] = (),
    *,
    opset: int = 17,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> ModelProto:
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    ir_version = max(4, helper.find_min_ir_version_for(opsets[:1]), 8 if functions else 0)
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=functions)


def conv(x: str, y: str, size: int = 3, **attributes: Any) -> NodeProto:
    pads = [size // 2] * 4
    return node("Conv", [x, f"{y}.w", f"{y}.b"], [y], f"{y}.conv", kernel_shape=[size, size], pads=pads, **attributes)


def conv_weights(y: str, out: int, inn: int, size: int = 3, dtype: str = "float32") -> list[TensorProto]:
    return [weight(f"{y}.w", out, inn, size, size, dtype=dtype), weight(f"{y}.b", out, dtype=dtype)]


def save(proto: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path
