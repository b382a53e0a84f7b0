"""Models with bodies, functions, foreign operators, and tensors that cannot travel."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from tests.models.parts import BOOL, FLOAT, INT64, constant, model, node, value, weight


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
