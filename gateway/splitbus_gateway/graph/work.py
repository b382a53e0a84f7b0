"""How much a step has to do, guessed from shapes alone: enough to rank cuts before anything has been measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from onnx import GraphProto, NodeProto

from splitbus_gateway.graph.shapes import Types
from splitbus_gateway.graph.topology import Topology, uses

# Work so small beside a convolution's that it belongs to the node before it (which onnxruntime often fuses it into).
_LIGHT = {
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil", "Celu", "Clip", "DequantizeLinear",
    "Div", "Dropout", "Elu", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gelu", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LayerNormalization", "LeakyRelu", "LogSoftmax", "Max",
    "MaxPool", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceSum",
    "Relu", "Reshape", "RMSNormalization", "Round", "Selu", "Shape", "Sigmoid", "Slice", "Softmax", "Softplus", "Split",
    "Sqrt", "Squeeze", "Sub", "Swish", "Tanh", "ThresholdedRelu", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip

# Which input is multiplied with each output value's window (the weights but for their first axis).
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
# Which input is multiplied along its last axis.
_PRODUCTS = {"MatMul": 0, "Gemm": 0, "FusedMatMul": 0, "FusedGemm": 0, "MatMulInteger": 0, "QLinearMatMul": 0}
_RECURRENT = {"LSTM", "GRU", "RNN"}


@dataclass(frozen=True, slots=True)
class Work:
    """Of one step: multiply-accumulates, and values read and written; none of either where the step is light."""

    macs: float
    moved: float


def is_light(step: NodeProto) -> bool:
    """Whether the step belongs to the one before it."""
    return step.op_type in _LIGHT and step.domain in {"", "ai.onnx"}


def step_work(topology: Topology, graph: GraphProto, types: Types) -> tuple[Work, ...]:
    """Of each step in order. A step that multiplies nothing, or in a way not known here, counts what it moves."""
    sizes: dict[str, tuple[int, ...]] = {name: spec.sizes for name, spec in types.specs.items()}
    sizes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in topology.order:
        if node.op_type == "DequantizeLinear":  # its weights may be constants that nothing else has the sizes of
            sizes.setdefault(node.output[0], sizes.get(node.input[0], ()))
    return tuple(_work(step, sizes) for step in topology.steps)


def _work(step: NodeProto, sizes: Mapping[str, tuple[int, ...]]) -> Work:
    if is_light(step):
        return Work(0.0, 0.0)
    names = {name for name in (*uses(step), *step.output) if name in sizes}
    moved = float(sum(prod(sizes[name]) for name in names))
    return Work(float(_macs(step, sizes)) or moved, moved)


def _macs(step: NodeProto, sizes: Mapping[str, tuple[int, ...]]) -> int:
    def size(names: list[str], place: int) -> tuple[int, ...]:
        return sizes.get(names[place], ()) if place < len(names) else ()

    given, made = list(step.input), prod(size(list(step.output), 0))
    if step.op_type in _CONVOLUTIONS:
        return made * prod(size(given, _CONVOLUTIONS[step.op_type])[1:])
    if step.op_type == "ConvTranspose":
        return prod(size(given, 0)) * prod(size(given, 1)[1:])
    if step.op_type in _PRODUCTS:
        return made * prod(size(given, _PRODUCTS[step.op_type])[-1:])
    if step.op_type in _RECURRENT:
        return prod(size(given, 0)[:2]) * (prod(size(given, 1)[1:]) + prod(size(given, 2)[1:]))
    return 0
