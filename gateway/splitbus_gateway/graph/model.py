"""Reads a model file into a graph that can be cut: checked, in order, its weights by reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from onnx import ModelProto, NodeProto, defs

from splitbus_gateway.graph.prefixes import with_best_cuts
from splitbus_gateway.graph.shapes import Shapes, Types, input_types, tensor_types
from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.graph.topology import Topology, arrange, label, uses
from splitbus_gateway.graph.weights import ModelFile, Weight, take_weights
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ModelError

OPSETS = range(9, 24)  # the versions of the default operator set that are tested
IR_VERSION = 4  # the first in which an initializer need not be an input
_MAX_FILE = 2**31 - 1  # protobuf reads no more
_OUR_DOMAINS = {"", "ai.onnx"}
# What onnxruntime's CPU build implements beside the default operators.
_RUNTIME_DOMAINS = {"ai.onnx.ml", "ai.onnx.preview", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}


@dataclass(frozen=True)
class ModelGraph:
    """A model, ready to be cut; `proto` has its nodes in order and stubs for `weights`.

    `sha256` is the model's identity: the hash of its file, or, when it has several, of their hashes in order.
    """

    path: Path
    sha256: str
    files: tuple[ModelFile, ...]
    proto: ModelProto
    weights: Mapping[str, Weight]
    topology: Topology
    types: Types
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]

    @property
    def steps(self) -> int:
        """How many nodes lie in order; cuts are numbered 0 to this."""
        return len(self.topology.steps)

    @property
    def opset(self) -> int:
        return opset_of(self.proto)


def load_graph(path: Path, *, shapes: Shapes | None = None, feed: Mapping[str, Array] | None = None) -> ModelGraph:
    """Read an ONNX model for cutting, without its weights.

    `shapes` sizes the inputs whose declared shape is symbolic (1 otherwise); `feed` is run once if shapes cannot be
    inferred. Raises ModelError for a file that is missing, no ONNX model, or a graph that cannot be run.
    """
    proto = read_proto(path)
    _check(proto, path)
    weights, files = take_weights(proto, path)
    lean = _lean(proto)
    topology = arrange(lean.graph)
    proto = _ordered(lean, topology)
    weights = {tensor.name: weights[tensor.name] for tensor in proto.graph.initializer if tensor.name in weights}
    feed = feed or {}
    inputs = input_types(proto, {**{name: array.shape for name, array in feed.items()}, **(shapes or {})}, str(path))
    crossing = sorted(name for name in topology.last_use if topology.produced[name])
    types = tensor_types(proto, [*crossing, *_results(proto, topology, crossing)], inputs, weights, feed)
    topology = with_best_cuts(proto.graph, topology, types)
    proto = _ordered(proto, topology)
    digest = files[0].sha256 if len(files) == 1 else sha256("".join(f.sha256 for f in files).encode()).hexdigest()
    outputs = tuple(value.name for value in proto.graph.output)
    return ModelGraph(path, digest, files, proto, weights, topology, types, tuple(inputs.specs.values()), outputs)


def _results(proto: ModelProto, topology: Topology, crossing: list[str]) -> list[str]:
    """The outputs that no step reads: neither inputs nor among the `crossing`."""
    names = [value.name for value in proto.graph.output]
    return [name for name in names if topology.produced.get(name) != 0 and name not in crossing]


def opset_of(proto: ModelProto) -> int:
    """The version of the default operator set."""
    return next((entry.version for entry in proto.opset_import if entry.domain in _OUR_DOMAINS), 0)


def read_proto(path: Path) -> ModelProto:
    """The model in a file, its external data left where it is. Raises ModelError."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_FILE else b""
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:
        raise ModelError(f"{path} is not an ONNX model: give a file that an exporter wrote as .onnx") from error
    if not data and path.stat().st_size:
        raise ModelError(f"{path} has more than 2 GB in one file: save it with its weights as external data")
    if not proto.HasField("graph") or not (proto.opset_import or proto.ir_version):
        raise ModelError(f"{path} is not an ONNX model: give a file that an exporter wrote as .onnx")
    return proto


def _check(proto: ModelProto, path: Path) -> None:
    """Refuse what would fail later, and name it."""
    if not proto.graph.node:
        raise ModelError(f"{path} has no nodes: there is nothing to run")
    if not proto.graph.output:
        raise ModelError(f"{path} has no outputs: there is nothing to answer")
    opset = opset_of(proto)
    if opset and opset not in OPSETS:
        first, last = OPSETS[0], OPSETS[-1]
        raise ModelError(
            f"{path} uses opset {opset}, this program reads {first} to {last}: export it with one of those"
        )
    functions = {(function.domain, function.name) for function in proto.functions}
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    for node in proto.graph.node:
        if (node.domain, node.op_type) not in functions:
            _check_node(node, versions, path)


def _check_node(node: NodeProto, versions: Mapping[str, int], path: Path) -> None:
    if node.domain in _RUNTIME_DOMAINS:
        return
    if node.domain not in _OUR_DOMAINS:
        raise ModelError(f"{path}: node {label(node)} is of domain {node.domain}, which onnxruntime does not have")
    version = versions.get("", versions.get("ai.onnx", 0))
    if not defs.has(node.op_type, max_inclusive_version=version):
        raise ModelError(f"{path}: node {label(node)} is no operator of opset {version}: export the model again")


def _lean(proto: ModelProto) -> ModelProto:
    """A copy that lets go of the weights' memory, without what only people and exporters read."""
    lean = ModelProto()
    lean.ParseFromString(proto.SerializeToString())
    lean.ir_version = max(lean.ir_version, IR_VERSION)
    lean.ClearField("training_info")
    lean.ClearField("doc_string")
    lean.graph.ClearField("doc_string")
    for node in lean.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    return lean


def _ordered(proto: ModelProto, topology: Topology) -> ModelProto:
    """The model with its nodes in order, without what no output needs; initializers are no longer inputs."""
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer} | {
        sparse.values.name for sparse in graph.sparse_initializer
    }
    read = {name for node in topology.order for name in uses(node)} | {value.name for value in graph.output}
    ordered = ModelProto()
    ordered.CopyFrom(proto)
    for field in ("node", "initializer", "sparse_initializer", "input"):
        ordered.graph.ClearField(field)
    ordered.graph.node.extend(topology.order)
    ordered.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    ordered.graph.sparse_initializer.extend(s for s in graph.sparse_initializer if s.values.name in read)
    ordered.graph.input.extend(value for value in graph.input if value.name not in constants)
    return ordered
