"""Codecs at a cut that are ordinary nodes at the end of one slice and the beginning of the next.

A tensor x is sent under f16 as x::f16; under q8 as x::q8, x::q8.lo and x::q8.step with x = lo + step * q, where each
channel of each sample has its own lo and step; under q4 likewise. raw and zstd need no nodes, nor do small or integer
tensors. Under TRANSFORM each tensor has a coder of its own, and one without is sent as under q8. The names tell the
codec, so that a slice may take one and give another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from splitbus_gateway.graph.tensors import ONNX_DTYPES, TensorSpec
from splitbus_runtime.engine import Array
from splitbus_schemas.codecs import TRANSFORM

MIN_ELEMENTS = 256  # a smaller tensor is sent as it is: it is cheap, and its ranges would cost as much as it saves
MIN_CHANNEL = 32  # elements that share a lo and a step (8 bytes); with fewer, the whole tensor shares one pair
_NIBBLE = 15
_TINY = 1e-30  # the least step: constant channels divide by it, and 1 / step stays finite
_HALF_MAX = 65504.0  # the largest float16: larger values saturate instead of becoming infinite
_REDUCE_AXES_INPUT = 18  # from this opset on, the axes of ReduceMin and ReduceMax are an input
_SLICE_INPUTS = 10  # from this opset on, the bounds of Slice are inputs


@dataclass
class Nodes:
    """Nodes and constants being written for one graph; all names begin with `prefix`."""

    opset: int
    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Append a node; gives its output's name, a new one unless told."""
        output = output or f"{self.prefix}/{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=f"{self.prefix}/{op}{len(self.nodes)}", **attributes)
        )
        return output

    def constant(self, value: float | Sequence[Any] | Array, dtype: str = "float32") -> str:
        name = f"{self.prefix}/c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def cast(self, name: str, dtype: str, output: str = "") -> str:
        return self.add("Cast", [name], output, to=ONNX_DTYPES[dtype])

    def reduce(self, op: str, name: str, axes: Sequence[int], output: str = "") -> str:
        """ReduceMin or ReduceMax that keeps the rank; no axes: all."""
        if not axes:
            return self.add(op, [name], output, keepdims=1)
        if self.opset < _REDUCE_AXES_INPUT:
            return self.add(op, [name], output, axes=list(axes), keepdims=1)
        return self.add(op, [name, self.constant(axes, "int64")], output, keepdims=1)

    def slice(self, name: str, axis: int, start: int, end: int) -> str:
        if self.opset < _SLICE_INPUTS:
            return self.add("Slice", [name], axes=[axis], starts=[start], ends=[end])
        return self.add("Slice", [name, *(self.constant([value], "int64") for value in (start, end, axis))])


@dataclass(frozen=True)
class NodeCoder:
    """One codec: the tensors it sends for one, and the nodes that make them and undo them."""

    wire: Callable[[TensorSpec], tuple[TensorSpec, ...]]
    encode: Callable[[TensorSpec, Nodes], None]
    decode: Callable[[TensorSpec, Nodes], None]


Transforms: TypeAlias = Mapping[str, NodeCoder]
"""The coders of a model's tensors, by name, that TRANSFORM stands for."""

NO_TRANSFORMS: Final[Transforms] = MappingProxyType({})


def wire_tensors(tensor: TensorSpec, codec: str, transforms: Transforms = NO_TRANSFORMS) -> tuple[TensorSpec, ...]:
    """The tensors that travel for `tensor` under `codec`."""
    coder = _coder(tensor, codec, transforms)
    return coder.wire(tensor) if coder else (tensor,)


def encode(tensor: TensorSpec, codec: str, opset: int, transforms: Transforms = NO_TRANSFORMS) -> Nodes:
    """The nodes that make the wire tensors from `tensor`, to stand at a slice's end."""
    nodes = Nodes(opset, f"{tensor.name}::encode")
    if coder := _coder(tensor, codec, transforms):
        coder.encode(tensor, nodes)
    return nodes


def decode(tensor: TensorSpec, codec: str, opset: int, transforms: Transforms = NO_TRANSFORMS) -> Nodes:
    """The nodes that make `tensor` from its wire tensors, to stand at a slice's beginning."""
    nodes = Nodes(opset, f"{tensor.name}::decode")
    if coder := _coder(tensor, codec, transforms):
        coder.decode(tensor, nodes)
    return nodes


def _coder(tensor: TensorSpec, codec: str, transforms: Transforms) -> NodeCoder | None:
    if codec == TRANSFORM:
        return transforms.get(tensor.name) or _coder(tensor, "q8", transforms)
    coder = _CODERS[codec]
    if coder is None or not tensor.is_float or tensor.elements < MIN_ELEMENTS:
        return None
    return None if codec == "f16" and tensor.dtype == "float16" else coder


# f16 ------------------------------------------------------------------------------------------------------------------


def _half_wire(tensor: TensorSpec) -> tuple[TensorSpec, ...]:
    return (replace(tensor, name=f"{tensor.name}::f16", dtype="float16"),)


def _half_encode(tensor: TensorSpec, nodes: Nodes) -> None:
    high, low = (nodes.constant(bound, tensor.dtype) for bound in (_HALF_MAX, -_HALF_MAX))
    bounded = nodes.add("Max", [nodes.add("Min", [tensor.name, high]), low])
    nodes.cast(bounded, "float16", f"{tensor.name}::f16")


def _half_decode(tensor: TensorSpec, nodes: Nodes) -> None:
    nodes.cast(f"{tensor.name}::f16", tensor.dtype, tensor.name)


# q8, q4 ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Packing:
    """q4: the first and the last `half` of `size` along `axis` share bytes; when odd, they overlap by one."""

    axis: int
    size: int

    @property
    def half(self) -> int:
        return (self.size + 1) // 2


def _reduced_axes(tensor: TensorSpec) -> tuple[int, ...]:
    """The axes whose elements share a range: all but sample and channel; () for the whole tensor."""
    rank = len(tensor.sizes)
    axes = {3: (1,), 4: (2, 3), 5: (2, 3, 4)}.get(rank, ())
    return axes if prod(tensor.sizes[axis] for axis in axes) >= MIN_CHANNEL else ()


@dataclass(frozen=True)
class _Quantiser:
    codec: str
    levels: int

    def names(self, tensor: TensorSpec) -> tuple[str, str, str]:
        wire = f"{tensor.name}::{self.codec}"
        return wire, f"{wire}.lo", f"{wire}.step"

    def packing(self, tensor: TensorSpec) -> _Packing | None:
        """An axis of known size to pack along, an even one and an early one if possible, never the batch.

        None: values stay one to a byte, and for q4 the lossless stage behind makes up for it.
        """
        if self.levels > _NIBBLE:
            return None
        dims = enumerate(tensor.shape)
        known = [_Packing(axis, dim) for axis, dim in dims if axis and isinstance(dim, int) and dim > 1]
        return min(known, key=lambda packing: (packing.size % 2, packing.axis), default=None)


def _quantised_wire(tensor: TensorSpec, quantiser: _Quantiser) -> tuple[TensorSpec, ...]:
    axes = _reduced_axes(tensor) or range(len(tensor.sizes))
    shape = tuple(1 if axis in axes else dim for axis, dim in enumerate(tensor.shape))
    sizes = tuple(1 if axis in axes else size for axis, size in enumerate(tensor.sizes))
    q, lo, step = quantiser.names(tensor)
    codes = replace(tensor, name=q, dtype="uint8")
    if packing := quantiser.packing(tensor):
        codes = replace(codes, shape=_with(codes.shape, packing), sizes=_with(codes.sizes, packing))
    return (codes, TensorSpec(lo, "float32", shape, sizes), TensorSpec(step, "float32", shape, sizes))


def _with(dims: tuple[Any, ...], packing: _Packing) -> tuple[Any, ...]:
    return (*dims[: packing.axis], packing.half, *dims[packing.axis + 1 :])


def _quantised_encode(tensor: TensorSpec, nodes: Nodes, quantiser: _Quantiser) -> None:
    q_name, lo_name, step_name = quantiser.names(tensor)
    x = tensor.name if tensor.dtype == "float32" else nodes.cast(tensor.name, "float32")
    axes = _reduced_axes(tensor)
    lo = nodes.reduce("ReduceMin", x, axes, lo_name)
    spread = nodes.add("Sub", [nodes.reduce("ReduceMax", x, axes), lo])
    step = nodes.add("Mul", [spread, nodes.constant(1 / quantiser.levels)])
    step = nodes.add("Max", [step, nodes.constant(_TINY)], step_name)
    # One reciprocal a channel, and adding a half before the cast truncates, take a third off Div, Round and Clip.
    inverse = nodes.add("Div", [nodes.constant(1.0), step])
    scaled = nodes.add("Mul", [nodes.add("Sub", [x, lo]), inverse])
    q = nodes.add("Add", [scaled, nodes.constant(0.5)])
    if packing := quantiser.packing(tensor):
        first = nodes.add("Floor", [nodes.slice(q, packing.axis, 0, packing.half)])
        second = nodes.slice(q, packing.axis, packing.size - packing.half, packing.size)
        q = nodes.add("Add", [nodes.add("Mul", [first, nodes.constant(16.0)]), second])
    nodes.cast(q, "uint8", q_name)


def _quantised_decode(tensor: TensorSpec, nodes: Nodes, quantiser: _Quantiser) -> None:
    q_name, lo, step = quantiser.names(tensor)
    q = nodes.cast(q_name, "float32")
    if packing := quantiser.packing(tensor):
        first = nodes.add("Floor", [nodes.add("Mul", [q, nodes.constant(1 / 16)])])
        second = nodes.add("Sub", [q, nodes.add("Mul", [first, nodes.constant(16.0)])])
        if overlap := 2 * packing.half - packing.size:
            second = nodes.slice(second, packing.axis, overlap, packing.half)
        q = nodes.add("Concat", [first, second], axis=packing.axis)
    scaled = nodes.add("Mul", [q, step])
    if tensor.dtype == "float32":
        nodes.add("Add", [scaled, lo], tensor.name)
    else:
        nodes.cast(nodes.add("Add", [scaled, lo]), tensor.dtype, tensor.name)


def _quantiser_coder(quantiser: _Quantiser) -> NodeCoder:
    return NodeCoder(
        lambda tensor: _quantised_wire(tensor, quantiser),
        lambda tensor, nodes: _quantised_encode(tensor, nodes, quantiser),
        lambda tensor, nodes: _quantised_decode(tensor, nodes, quantiser),
    )


_CODERS: dict[str, NodeCoder | None] = {
    "raw": None,
    "zstd": None,
    "f16": NodeCoder(_half_wire, _half_encode, _half_decode),
    "q8": _quantiser_coder(_Quantiser("q8", 255)),
    "q4": _quantiser_coder(_Quantiser("q4", 15)),
}
CODECS = tuple(_CODERS)
PLAIN_CODECS = tuple(codec for codec, coder in _CODERS.items() if coder is None)
