"""The transform as ordinary ONNX nodes, at the end of one slice and the beginning of the next.

A tensor x is sent as x::t, its coefficients (float32, batch x components x space). They are rounded where bytes are
made of them, so that another strength needs no other slice.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from splitbus_gateway.graph.codec_nodes import NodeCoder, Nodes
from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.transform.quantise import Transform
from splitbus_runtime.engine import Array

_ROUND = 11  # the first opset that has it; before, half is added and the rest cut off


def wire_name(tensor: str) -> str:
    """Under which name the coefficients of a tensor travel."""
    return f"{tensor}::t"


def node_coder(transform: Transform) -> NodeCoder:
    """How slices code the tensor that the transform was found for."""
    return NodeCoder(
        lambda tensor: (wire_tensor(tensor, transform),),
        partial(_encode, transform=transform),
        partial(_decode, transform=transform),
    )


def wire_tensor(tensor: TensorSpec, transform: Transform) -> TensorSpec:
    """The coefficients that travel for a tensor."""
    shape, sizes = (tensor.shape[0], *transform.shape), (tensor.sizes[0], *transform.shape)
    return replace(tensor, name=wire_name(tensor.name), dtype="float32", shape=shape, sizes=sizes)


def _encode(tensor: TensorSpec, nodes: Nodes, *, transform: Transform) -> None:
    layout = transform.layout
    x = tensor.name if tensor.dtype == "float32" else nodes.cast(tensor.name, "float32")
    x = _mix(nodes, x, transform.forward, -(transform.forward @ transform.mean), transform)
    if layout.channel != 1:
        x = nodes.add("Transpose", [x], perm=list(layout.order))
    x = _along_space(nodes, x, list(transform.matrices))
    nodes.add("Mul", [x, nodes.constant(transform.weight)], wire_name(tensor.name))


def _decode(tensor: TensorSpec, nodes: Nodes, *, transform: Transform) -> None:
    layout = transform.layout
    x = nodes.add("Mul", [wire_name(tensor.name), nodes.constant(1 / transform.weight)])
    x = _along_space(nodes, x, [None if m is None else m.T for m in transform.matrices])
    if layout.channel != 1:
        x = nodes.add("Transpose", [x], perm=list(layout.inverse))
    last = tensor.name if tensor.dtype == "float32" else ""
    x = _mix(nodes, x, transform.inverse, transform.mean, transform, last)
    if tensor.dtype == "float32":
        return
    if not tensor.is_float:
        bounds = np.iinfo(tensor.dtype)
        x = _bounded(nodes, _round(nodes, x), bounds.min, bounds.max)
    nodes.cast(x, tensor.dtype, tensor.name)


def _mix(nodes: Nodes, x: str, matrix: Array, offset: Array, transform: Transform, output: str = "") -> str:
    """The matrix applied to the channels, plus an offset for each."""
    space = len(transform.layout.space)
    if transform.layout.channel == 1 and space:
        kernel = matrix.reshape(*matrix.shape, *(1,) * space)
        return nodes.add("Conv", [x, nodes.constant(kernel), nodes.constant(offset)], output)
    mixed = nodes.add("MatMul", [x, nodes.constant(matrix.T)])
    return nodes.add("Add", [mixed, nodes.constant(offset)], output)


def _along_space(nodes: Nodes, x: str, matrices: list[Array | None]) -> str:
    """The matrices applied to the last axes, the first of two from the left."""
    for axis, matrix in enumerate(matrices):
        if matrix is None:
            continue
        last = axis == len(matrices) - 1
        x = nodes.add("MatMul", [x, nodes.constant(matrix.T)] if last else [nodes.constant(matrix), x])
    return x


def _round(nodes: Nodes, x: str) -> str:
    if nodes.opset >= _ROUND:
        return nodes.add("Round", [x])
    return nodes.add("Floor", [nodes.add("Add", [x, nodes.constant(0.5)])])


def _bounded(nodes: Nodes, x: str, low: float, high: float) -> str:
    return nodes.add("Max", [nodes.add("Min", [x, nodes.constant(high)]), nodes.constant(low)])
