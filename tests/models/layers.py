"""Models of the common layers: chains, branches, attention, 8 bits, and the versions of the operator set."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from tests.models.parts import FLOAT, INT64, constant, conv, conv_weights, model, node, value, weight


def chain(batch: int | str = 1, dtype: int = FLOAT) -> ModelProto:
    """Three convolutions with activations, then a classifier."""
    kind = "float16" if dtype == TensorProto.FLOAT16 else "float32"
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


def hidden_cut() -> ModelProto:
    """Two branches, one narrow early and one late, in a file order that no cut behind both narrow places fits in."""
    nodes = [
        conv("x", "b1", strides=[4, 4]),
        conv("x", "a1"),
        conv("b1", "b2", 1),
        conv("b2", "b3"),
        conv("a1", "a2", strides=[4, 4]),
        conv("a2", "a3", 1),
        node("Concat", ["a3", "b3"], ["j"], axis=1),
        conv("j", "y", 1),
    ]
    sizes = [("a1", 16, 3, 3), ("a2", 2, 16, 3), ("a3", 32, 2, 1), ("b1", 2, 3, 3), ("b2", 32, 2, 1), ("b3", 32, 32, 3)]
    weights = [tensor for size in [*sizes, ("y", 5, 64, 1)] for tensor in conv_weights(*size)]
    return model(nodes, [value("x", [1, 3, 16, 16])], [value("y", [1, 5, 4, 4])], weights)


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
