"""Takes the slice between two cuts out of a graph, as a small model of its own and references to its weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from onnx import FunctionProto, ModelProto, NodeProto, ValueInfoProto, helper

from splitbus_gateway.graph.codec_nodes import NO_TRANSFORMS, Transforms, decode, encode, wire_tensors
from splitbus_gateway.graph.cuts import Cut, cut_at
from splitbus_gateway.graph.model import ModelGraph
from splitbus_gateway.graph.tensors import ONNX_DTYPES, TensorSpec
from splitbus_gateway.graph.topology import uses
from splitbus_gateway.graph.weights import Weight
from splitbus_schemas.errors import ModelError

_CODEC_OPSET = 13  # for a model that uses no default operator, so that codec nodes have a version


@dataclass(frozen=True)
class SliceGraph:
    """A runnable slice: `open_session(model, weights={w.name: w.array() for w in weights})`.

    `inputs` are the wire tensors of its first cut; `outputs` those of its last one, then the model's outputs that it
    makes (`finished`). The same graph, range and codecs give the same bytes.
    """

    model: bytes
    weights: tuple[Weight, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    finished: tuple[str, ...]

    @cached_property
    def sha256(self) -> str:
        """The hash of the graph: the name of the slice."""
        return sha256(self.model).hexdigest()


def extract(
    graph: ModelGraph,
    first: int,
    last: int,
    *,
    codec_in: str = "raw",
    codec_out: str = "raw",
    transforms: Transforms = NO_TRANSFORMS,
) -> SliceGraph:
    """The slice of the steps between cut `first` and cut `last`; both 0 gives a slice that only encodes the inputs.

    A tensor that goes through under one and the same codec is passed on as it came. `transforms` are the coders of the
    model's tensors, where a codec needs them. Raises ModelError when a cut is
    not legal, ValueError when they are in the wrong order.
    """
    if first > last or (first == last != 0):
        raise ValueError(f"a slice goes from one cut to a later one, not from {first} to {last}")
    start, end = _legal(graph, first), _legal(graph, last)
    inputs = _wires(start.tensors, codec_in, transforms)
    finished = tuple(name for name in graph.outputs if _finishes(graph, name, first, last))
    outputs = _wires(end.tensors, codec_out, transforms, *(graph.types.specs[name] for name in finished))
    passed = {spec.name for spec in inputs}.intersection(spec.name for spec in outputs)
    made = [
        tensor
        for tensor in end.tensors
        if not passed.issuperset(wire.name for wire in wire_tensors(tensor, codec_out, transforms))
    ]
    body, constants = _body(graph, start, (*(tensor.name for tensor in made), *finished))
    opset = graph.opset or _CODEC_OPSET
    wanted = {*constants, *(name for node in body for name in uses(node)), *(t.name for t in made), *finished}
    before = [decode(tensor, codec_in, opset, transforms) for tensor in start.tensors if tensor.name in wanted]
    after = [encode(tensor, codec_out, opset, transforms) for tensor in made]

    nodes = [*(n for code in before for n in code.nodes), *body, *(n for code in after for n in code.nodes)]
    model = _empty(graph, nodes, opset)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(t for t in graph.proto.graph.initializer if t.name in constants)
    model.graph.initializer.extend(constant for code in (*before, *after) for constant in code.constants)
    model.graph.sparse_initializer.extend(
        sparse for sparse in graph.proto.graph.sparse_initializer if sparse.values.name in constants
    )
    model.graph.input.extend(map(_value, inputs))
    model.graph.output.extend(map(_value, outputs))
    weights = tuple(weight for name, weight in graph.weights.items() if name in constants)
    return SliceGraph(model.SerializeToString(deterministic=True), weights, inputs, outputs, finished)


def _legal(graph: ModelGraph, index: int) -> Cut:
    cut = cut_at(graph, index)
    if not cut.legal:
        raise ModelError(f"{graph.path} cannot be cut at {index}: {cut.reason}")
    return cut


def _finishes(graph: ModelGraph, name: str, first: int, last: int) -> bool:
    """Whether this slice makes the model's output `name`; an input that is an output belongs to the first slice."""
    made = graph.topology.outputs[name]
    return first < made <= last or (made == first == 0 < last)


def _wires(
    tensors: Iterable[TensorSpec], codec: str, transforms: Transforms, *more: TensorSpec
) -> tuple[TensorSpec, ...]:
    specs = (*(wire for tensor in tensors for wire in wire_tensors(tensor, codec, transforms)), *more)
    return tuple({spec.name: spec for spec in specs}.values())


def _body(graph: ModelGraph, start: Cut, wanted: Sequence[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes, in order, and the names of the constants that make the tensors `wanted` from those of `start`."""
    given = {tensor.name for tensor in start.tensors}
    producer = {name: index for index, node in enumerate(graph.topology.order) for name in node.output if name}
    needed: set[int] = set()
    constants: set[str] = set()
    left = list(wanted)
    while left:
        name = left.pop()
        if name in given:
            continue
        index = producer.get(name)
        if index is None:
            constants.add(name)
        elif index not in needed:
            needed.add(index)
            left.extend(uses(graph.topology.order[index]))
    return [graph.topology.order[index] for index in sorted(needed)], constants


def _empty(graph: ModelGraph, nodes: Iterable[NodeProto], opset: int) -> ModelProto:
    """A model without a graph: versions, metadata, and the local functions that `nodes` call."""
    model = ModelProto(ir_version=graph.proto.ir_version, producer_name="splitbus")
    model.opset_import.extend(graph.proto.opset_import)
    if not graph.opset:
        model.opset_import.add(domain="", version=opset)
    model.metadata_props.extend(graph.proto.metadata_props)
    model.functions.extend(_called(graph.proto, nodes))
    model.graph.name = graph.proto.graph.name or "slice"
    return model


def _called(proto: ModelProto, nodes: Iterable[NodeProto]) -> list[FunctionProto]:
    functions = {(function.domain, function.name): function for function in proto.functions}
    called: set[tuple[str, str]] = set()
    left = list(nodes)
    while left:
        node = left.pop()
        key = (node.domain, node.op_type)
        left.extend(inner for a in node.attribute for sub in (a.g, *a.graphs) for inner in sub.node)
        if key in functions and key not in called:
            called.add(key)
            left.extend(functions[key].node)
    return [function for key, function in functions.items() if key in called]


def _value(spec: TensorSpec) -> ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, ONNX_DTYPES[spec.dtype], spec.shape)
