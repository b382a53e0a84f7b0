"""Models with something odd about their inputs, outputs, constants, or order."""

from __future__ import annotations

from onnx import ModelProto, helper, numpy_helper
from tests.models.layers import chain, residual
from tests.models.parts import FLOAT, INT64, constant, conv, conv_weights, model, node, value, weight


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


def out_of_order() -> ModelProto:
    """The nodes are listed backwards."""
    proto = residual()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


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


def sparse_weight() -> ModelProto:
    """A weight kept as a sparse initializer, read on both sides of the cuts inside."""
    places = [3, 40, 77, 200, 255]
    indices = helper.make_tensor("", INT64, [5], places)
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", FLOAT, [5], [1.0, -2.0, 0.5, 3.0, 1.5]), indices, [16, 16]
    )
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Tanh", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    proto = model(nodes, [value("x", [1, 16])], [value("y", [1, 16])])
    proto.graph.sparse_initializer.append(sparse)
    return proto
