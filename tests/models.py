"""A corpus of small ONNX models, each with one trait that makes cutting hard; any test may use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
OPSETS = range(9, 24)
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


def chain(batch: int | str = 1, dtype: int = FLOAT) -> ModelProto:
    """Three convolutions with activations, then a classifier."""
    kind = {FLOAT: "float32", TensorProto.FLOAT16: "float16"}[dtype]
    nodes = [
        conv("x", "a", strides=[2, 2]),
        node("Relu", ["a"], ["ar"], "relu_a"),
        conv("ar", "b"),
        node("LeakyRelu", ["b"], ["br"], "relu_b"),
        conv("br", "c", strides=[2, 2]),
        node("Relu", ["c"], ["cr"], "relu_c"),
        node("GlobalAveragePool", ["cr"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("Gemm", ["f", "g.w", "g.b"], ["y"], "gemm"),
    ]
    layers = [*conv_weights("a", 8, 3, 3, kind), *conv_weights("b", 8, 8, 3, kind), *conv_weights("c", 8, 8, 3, kind)]
    weights = [*layers, weight("g.w", 8, 10, dtype=kind), weight("g.b", 10, dtype=kind)]
    return model(nodes, [value("x", [batch, 3, 16, 16], dtype)], [value("y", [batch, 10], dtype)], weights)


def float64() -> ModelProto:
    double = TensorProto.DOUBLE
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    weights = [weight("w", 32, 32, dtype="float64")]
    return model(nodes, [value("x", ["N", 10, 32], double)], [value("y", ["N", 10, 32], double)], weights)


def residual() -> ModelProto:
    nodes = [
        conv("x", "a"),
        node("Relu", ["a"], ["ar"]),
        conv("ar", "b"),
        node("Relu", ["b"], ["br"]),
        conv("br", "c"),
        node("Add", ["c", "ar"], ["s"]),
        node("Relu", ["s"], ["y"]),
    ]
    weights = [*conv_weights("a", 8, 3), *conv_weights("b", 8, 8), *conv_weights("c", 8, 8)]
    return model(nodes, [value("x", [1, 3, 9, 7])], [value("y", [1, 8, 9, 7])], weights)


def branches() -> ModelProto:
    """Three branches of unlike depth, so that up to three tensors are alive at once."""
    nodes = [
        conv("x", "a"),
        conv("a", "b"),
        conv("a", "c", 1),
        conv("b", "d"),
        node("MaxPool", ["a"], ["m"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Concat", ["c", "d", "m"], ["j"], axis=1),
        conv("j", "y", 1),
    ]
    sizes = [("a", 8, 3, 3), ("b", 4, 8, 3), ("c", 4, 8, 1), ("d", 4, 4, 3), ("y", 5, 16, 1)]
    weights = [tensor for size in sizes for tensor in conv_weights(*size)]
    return model(nodes, [value("x", [1, 3, 8, 8])], [value("y", [1, 5, 8, 8])], weights)


def inputs_outputs() -> ModelProto:
    """Two inputs, the second used late; three outputs, one an input as it came, one a constant."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Tanh", ["a"], ["y"]),
        node("MatMul", ["y", "v"], ["b"]),
        node("Add", ["b", "late"], ["c"]),
        node("Sigmoid", ["c"], ["z"]),
        node("Mul", ["k", "k"], ["kk"]),
    ]
    inputs = [value("x", ["N", 16]), value("late", ["N", 16])]
    outputs = [value("z", ["N", 16]), value("late", ["N", 16]), value("y", ["N", 16]), value("kk", [3])]
    return model(nodes, inputs, outputs, [weight("w", 16, 16), weight("v", 16, 16), constant("k", [1, 2, 3])])


def early_output() -> ModelProto:
    """One output is finished early and read by nobody, another is read on."""
    nodes = [
        conv("x", "a"),
        node("Relu", ["a"], ["mid"]),
        node("ReduceMax", ["mid"], ["score"], axes=[1, 2, 3], keepdims=0),
        conv("mid", "b"),
        node("Relu", ["b"], ["c"]),
        conv("c", "y"),
    ]
    weights = [*conv_weights("a", 8, 3), *conv_weights("b", 8, 8), *conv_weights("y", 4, 8)]
    outputs = [value("score", [1]), value("mid", [1, 8, 8, 8]), value("y", [1, 4, 8, 8])]
    return model(nodes, [value("x", [1, 3, 8, 8])], outputs, weights)


def unused_input() -> ModelProto:
    proto = residual()
    proto.graph.input.append(value("nobody_reads_me", ["N", 7]))
    return proto


def initializers_as_inputs() -> ModelProto:
    proto = chain()
    proto.ir_version = 3
    proto.graph.input.extend(value(t.name, t.dims) for t in proto.graph.initializer)
    return proto


def constant_weights() -> ModelProto:
    """Weights, large and small, in Constant nodes."""
    proto = chain()
    tensors = list(proto.graph.initializer)
    nodes = [node("Constant", [], [t.name], f"constant_{t.name}", value=t) for t in tensors] + list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def constant_subgraph() -> ModelProto:
    """A weight that is computed from constants and used on both sides of most cuts."""
    nodes = [
        node("ConstantOfShape", ["shape"], ["ones"], value=constant("one", [1])),
        node("Mul", ["ones", "w"], ["scaled"]),
        node("Transpose", ["scaled"], ["turned"], perm=[1, 0]),
        node("MatMul", ["x", "scaled"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "turned"], ["c"]),
        node("Relu", ["c"], ["d"]),
        node("MatMul", ["d", "scaled"], ["y"]),
    ]
    weights = [weight("w", 24, 24), constant("shape", [24, 24], "int64")]
    return model(nodes, [value("x", [2, 24])], [value("y", [2, 24])], weights)


def shape_subgraph() -> ModelProto:
    """The batch is measured early and used late, as exporters write view(x.size(0), -1)."""
    nodes = [
        conv("x", "a"),
        node("Relu", ["a"], ["b"]),
        conv("b", "c"),
        node("Shape", ["b"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"], axis=0),
        node("Unsqueeze", ["batch", "axes"], ["rows"]),
        node("Concat", ["rows", "rest"], ["target"], axis=0),
        node("Reshape", ["c", "target"], ["flat"]),
        node("Gemm", ["flat", "g.w", "g.b"], ["y"]),
    ]
    numbers = [constant("zero", 0, "int64"), constant("axes", [0], "int64"), constant("rest", [-1], "int64")]
    weights = [*conv_weights("a", 8, 3), *conv_weights("c", 4, 8), weight("g.w", 256, 10), weight("g.b", 10), *numbers]
    return model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 10])], weights)


def _branch(nodes: Sequence[NodeProto], output: str, weights: Sequence[TensorProto] = ()) -> GraphProto:
    return helper.make_graph(nodes, output, [], [value(output, [1, 16])], weights)


def if_capture() -> ModelProto:
    """Both branches read tensors and weights of the graph around them."""
    then = _branch([node("MatMul", ["early", "v"], ["t"]), node("Add", ["t", "h"], ["to"])], "to")
    other = _branch([node("Mul", ["h", "own"], ["eo"])], "eo", [weight("own", 1, 16)])
    nodes = [
        node("MatMul", ["x", "w"], ["early"]),
        node("Relu", ["early"], ["g"]),
        node("MatMul", ["g", "w"], ["h"]),
        node("ReduceSum", ["h"], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["cond"]),
        node("If", ["cond"], ["z"], then_branch=then, else_branch=other),
        node("Tanh", ["z"], ["y"]),
    ]
    weights = [weight("w", 16, 16), weight("v", 16, 16), constant("zero", 0)]
    return model(nodes, [value("x", [1, 16])], [value("y", [1, 16])], weights)


def loop_capture() -> ModelProto:
    """A loop whose body reads a weight and, through a branch inside it, tensors made outside."""
    double = _branch([node("Add", ["outer", "outer"], ["twice"])], "twice")
    plain = _branch([node("Identity", ["start"], ["once"])], "once")
    step = helper.make_graph(
        [
            node("Identity", ["going"], ["going_on"]),
            node("MatMul", ["state", "w"], ["turned"]),
            node("If", ["going"], ["chosen"], then_branch=double, else_branch=plain),
            node("Add", ["turned", "chosen"], ["next"]),
        ],
        "step",
        [value("i", [], INT64), value("going", [], BOOL), value("state", [1, 16])],
        [value("going_on", [], BOOL), value("next", [1, 16])],
    )
    nodes = [
        node("MatMul", ["x", "v"], ["outer"]),
        node("Relu", ["outer"], ["start"]),
        node("Tanh", ["start"], ["begin"]),
        node("Loop", ["trips", "", "begin"], ["end"], body=step),
        node("Softmax", ["end"], ["y"]),
    ]
    weights = [weight("w", 16, 16), weight("v", 16, 16), constant("trips", 3, "int64")]
    return model(nodes, [value("x", [1, 16])], [value("y", [1, 16])], weights)


def per_opset(opset: int) -> ModelProto:
    """Operators whose attributes became inputs over time, each written as this opset wants it."""
    extra: list[TensorProto] = []

    def moved(op: str, x: str, y: str, since: int, **attributes: Any) -> NodeProto:
        if opset < since:
            return node(op, [x], [y], **attributes)
        names = [f"{y}.{key}" for key in attributes]
        dtypes = ["float32" if key in {"min", "max"} else "int64" for key in attributes]
        extra.extend(constant(n, v, d) for n, v, d in zip(names, attributes.values(), dtypes, strict=True))
        return node(op, [x, *names], [y])

    nodes = [
        conv("x", "a"),
        node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["n"]),
        moved("Clip", "n", "c", 11, min=0.0, max=6.0),
        moved("Slice", "c", "s", 10, starts=[1], ends=[7], axes=[2]),
        moved("Unsqueeze", "s", "u", 13, axes=[2]),
        moved("Squeeze", "u", "q", 13, axes=[2]),
        node("Softmax", ["q"], ["m"], axis=-1),
        node("ReduceMean", ["m"], ["r"], axes=[3], keepdims=1)
        if opset < 18
        else moved("ReduceMean", "m", "r", 18, axes=[3]),
        node("Add", ["q", "r"], ["t"]),
        conv("t", "b"),
        node("Flatten", ["b"], ["f"]),
        node("Gemm", ["f", "g.w", "g.b"], ["y"]),
    ]
    norm = [constant(name, np.linspace(0.5, 1.5, 8)) for name in ("scale", "bias", "mean", "var")]
    weights = [*conv_weights("a", 8, 3), *conv_weights("b", 4, 8), weight("g.w", 192, 10), weight("g.b", 10), *norm]
    return model(nodes, [value("x", ["N", 3, 8, 8])], [value("y", ["N", 10])], [*weights, *extra], opset=opset)


def qdq() -> ModelProto:
    """Two convolutions and a sum in 8 bits; both readers of a tensor share one DequantizeLinear."""

    def quantised(name: str, scale: float, *shape: int) -> list[TensorProto]:
        values = np.random.default_rng(list(name.encode())).integers(-127, 127, shape, np.int8)
        return [
            numpy_helper.from_array(values, f"{name}q"),
            constant(f"{name}s", scale),
            constant(f"{name}z", 0, "int8"),
        ]

    def both(x: str, y: str) -> list[NodeProto]:
        return [
            node("QuantizeLinear", [x, "s", "z"], [f"{y}q"], f"quantize_{y}"),
            node("DequantizeLinear", [f"{y}q", "s", "z"], [y], f"dequantize_{y}"),
        ]

    nodes = [
        *both("x", "xd"),
        node("DequantizeLinear", ["aq", "as", "az"], ["a"]),
        node("DequantizeLinear", ["bq", "bs", "bz"], ["b"]),
        node("Conv", ["xd", "a"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        *both("c", "cd"),
        node("Conv", ["cd", "b"], ["e"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        *both("e", "ed"),
        node("Add", ["ed", "cd"], ["f"]),
        *both("f", "y"),
    ]
    weights = [*quantised("a", 0.003, 8, 3, 3, 3), *quantised("b", 0.002, 8, 8, 3, 3)]
    weights += [constant("s", 0.03), constant("z", 128, "uint8")]
    return model(nodes, [value("x", [1, 3, 12, 12])], [value("y", [1, 8, 12, 12])], weights)


def transformer() -> ModelProto:
    """Token ids, an embedding, one block of attention and a feed-forward layer, over a sequence of any length."""
    nodes = [node("Gather", ["table", "ids"], ["h"]), node("LayerNormalization", ["h", "n.s", "n.b"], ["n"])]
    for part in "qkv":
        nodes += [
            node("MatMul", ["n", f"{part}.w"], [f"{part}0"]),
            node("Reshape", [f"{part}0", "heads"], [f"{part}1"]),
            node("Transpose", [f"{part}1"], [part], perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        node("MatMul", ["q", "k"], ["raw"]),
        node("Mul", ["raw", "scale"], ["scores"]),
        node("Softmax", ["scores"], ["probs"], axis=-1),
        node("MatMul", ["probs", "v"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "width"], ["joined"]),
        node("MatMul", ["joined", "o.w"], ["out"]),
        node("Add", ["out", "h"], ["r"]),
        node("LayerNormalization", ["r", "n.s", "n.b"], ["rn"]),
        node("MatMul", ["rn", "up.w"], ["up"]),
        node("Relu", ["up"], ["act"]),
        node("MatMul", ["act", "down.w"], ["down"]),
        node("Add", ["down", "r"], ["y"]),
    ]
    weights = [
        weight("table", 50, 32),
        constant("n.s", np.ones(32)),
        constant("n.b", np.zeros(32)),
        constant("scale", 0.35),
    ]
    weights += [weight(name, 32, 32) for name in ("q.w", "k.w", "v.w", "o.w")]
    weights += [weight("up.w", 32, 64), weight("down.w", 64, 32)]
    weights += [constant("heads", [0, 0, 4, 8], "int64"), constant("width", [0, 0, 32], "int64")]
    return model(nodes, [value("ids", ["N", "T"], INT64)], [value("y", ["N", "T", 32])], weights)


def single_node() -> ModelProto:
    return model(
        [node("MatMul", ["x", "w"], ["y"])], [value("x", [1, 32])], [value("y", [1, 32])], [weight("w", 32, 32)]
    )


def no_useful_cut() -> ModelProto:
    """Every tensor inside is larger than the input."""
    nodes = [conv("x", "a"), node("Relu", ["a"], ["b"]), conv("b", "y")]
    weights = [*conv_weights("a", 16, 1), *conv_weights("y", 16, 16)]
    return model(nodes, [value("x", [1, 1, 8, 8])], [value("y", [1, 16, 8, 8])], weights)


def out_of_order() -> ModelProto:
    """The nodes are listed backwards."""
    proto = residual()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def sequence() -> ModelProto:
    """In the middle a sequence of tensors, which packets do not carry."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("SplitToSequence", ["a"], ["parts"], axis=1),
        node("SequenceAt", ["parts", "second"], ["b"]),
        node("MatMul", ["a", "w"], ["c"]),
        node("Mul", ["c", "b"], ["y"]),
    ]
    weights = [weight("w", 16, 16), constant("second", 1, "int64")]
    return model(nodes, [value("x", [1, 16])], [value("y", [1, 16])], weights)


def bfloat16() -> ModelProto:
    """In the middle a bfloat16 tensor, which packets do not carry."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Cast", ["a"], ["narrow"], to=TensorProto.BFLOAT16),
        node("Cast", ["narrow"], ["wide"], to=FLOAT),
        node("MatMul", ["wide", "w"], ["y"]),
    ]
    return model(nodes, [value("x", [1, 32])], [value("y", [1, 32])], [weight("w", 32, 32)])


def data_dependent() -> ModelProto:
    """The size of a tensor depends on the numbers."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("NonZero", ["a"], ["where"]),
        node("Transpose", ["where"], ["places"]),
        node("GatherND", ["a", "places"], ["picked"]),
        node("Relu", ["picked"], ["y"]),
    ]
    return model(nodes, [value("x", [4, 16])], [value("y", ["found"])], [weight("w", 16, 16)])


def local_function() -> ModelProto:
    """Nodes that are functions of the model's own, one calling the other; a third is never called."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    product = [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])]
    swish = helper.make_function("own", "Swish", ["x"], ["y"], product, opsets)
    scale = node("Constant", [], ["k"], value=constant("k", 0.5))
    halved = [scale, node("Swish", ["x"], ["t"], domain="own"), node("Mul", ["t", "k"], ["y"])]
    half = helper.make_function("own", "Half", ["x"], ["y"], halved, opsets)
    never = helper.make_function("own", "Never", ["x"], ["y"], [node("Neg", ["x"], ["y"])], opsets)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Half", ["a"], ["b"], domain="own"),
        node("MatMul", ["b", "w"], ["c"]),
        node("Half", ["c"], ["y"], domain="own"),
    ]
    functions = [swish, half, never]
    weights = [weight("w", 32, 32)]
    return model(nodes, [value("x", [1, 32])], [value("y", [1, 32])], weights, domains=["own"], functions=functions)


def runtime_operator() -> ModelProto:
    """An operator of onnxruntime's own, whose shape onnx cannot infer."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("FastGelu", ["a"], ["b"], domain="com.microsoft"),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    inputs, outputs = [value("x", ["N", 32])], [value("y", ["N", 32])]
    return model(nodes, inputs, outputs, [weight("w", 32, 32)], domains=["com.microsoft"])


def dead_nodes() -> ModelProto:
    """A branch that no output needs."""
    proto = residual()
    proto.graph.node.extend([conv("ar", "dead"), node("Relu", ["dead"], ["deader"])])
    proto.graph.initializer.extend(conv_weights("dead", 32, 8))
    return proto


def float_fields() -> ModelProto:
    """Weights as lists of numbers instead of raw bytes."""
    proto = chain()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, FLOAT, values.shape, values.ravel().tolist()))
    return proto


def external(folder: Path, name: str = "model.onnx") -> Path:
    """The chain with all its weights in a file beside it."""
    path = folder / name
    onnx.save_model(chain(), path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


def huge(folder: Path) -> Path:
    """More than 2 GB of weights in a sparse file; the rows that the model reads are near its end and not zero."""
    rows, width = 2**21 + 2**16, 256
    nodes = [
        node("Gather", ["table", "ids"], ["h"]),
        node("MatMul", ["h", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    table = TensorProto(name="table", data_type=FLOAT, dims=[rows, width], data_location=TensorProto.EXTERNAL)
    for key, entry in {"location": "table.data", "offset": "0", "length": str(rows * width * 4)}.items():
        table.external_data.add(key=key, value=entry)
    ids = node("Add", ["x", "base"], ["ids"])
    weights = [table, weight("w", width, width), constant("base", rows - 4, "int64")]
    proto = model([ids, *nodes], [value("x", ["N"], INT64)], [value("y", ["N", width])], weights)
    with (folder / "table.data").open("wb") as file:
        file.seek((rows - 4) * width * 4)
        file.write(_numbers(4, width).tobytes())
    return save(proto, folder, "huge.onnx")


def _numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


CORPUS: dict[str, Callable[[], ModelProto]] = {
    "chain": chain,
    "symbolic_batch": lambda: chain("N"),
    "float16": lambda: chain(dtype=TensorProto.FLOAT16),
    "float64": float64,
    "residual": residual,
    "branches": branches,
    "inputs_outputs": inputs_outputs,
    "early_output": early_output,
    "unused_input": unused_input,
    "initializers_as_inputs": initializers_as_inputs,
    "constant_weights": constant_weights,
    "constant_subgraph": constant_subgraph,
    "shape_subgraph": shape_subgraph,
    "if_capture": if_capture,
    "loop_capture": loop_capture,
    "qdq": qdq,
    "transformer": transformer,
    "single_node": single_node,
    "no_useful_cut": no_useful_cut,
    "out_of_order": out_of_order,
    "sequence": sequence,
    "bfloat16": bfloat16,
    "data_dependent": data_dependent,
    "local_function": local_function,
    "runtime_operator": runtime_operator,
    "dead_nodes": dead_nodes,
    "float_fields": float_fields,
    **{f"opset{opset}": (lambda opset=opset: per_opset(opset)) for opset in OPSETS},
}
