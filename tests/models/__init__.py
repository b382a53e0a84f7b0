"""A corpus of small ONNX models, each with one trait that makes cutting hard; any test may use them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from onnx import ModelProto, TensorProto
from tests.models.edges import (
    constant_subgraph,
    constant_weights,
    dead_nodes,
    early_output,
    float_fields,
    initializers_as_inputs,
    inputs_outputs,
    out_of_order,
    shape_subgraph,
    sparse_weight,
    unused_input,
)
from tests.models.files import external, huge
from tests.models.flow import (
    bfloat16,
    data_dependent,
    if_capture,
    local_function,
    loop_capture,
    runtime_operator,
    sequence,
)
from tests.models.layers import (
    branches,
    chain,
    float64,
    no_useful_cut,
    per_opset,
    qdq,
    residual,
    single_node,
    transformer,
)
from tests.models.parts import BOOL, FLOAT, INT64, constant, conv, conv_weights, model, node, save, value, weight

__all__ = [
    "BOOL",
    "CORPUS",
    "FLOAT",
    "INT64",
    "OPSETS",
    "bfloat16",
    "branches",
    "chain",
    "constant",
    "constant_subgraph",
    "constant_weights",
    "conv",
    "conv_weights",
    "data_dependent",
    "dead_nodes",
    "early_output",
    "external",
    "float64",
    "float_fields",
    "huge",
    "if_capture",
    "initializers_as_inputs",
    "inputs_outputs",
    "local_function",
    "loop_capture",
    "model",
    "no_useful_cut",
    "node",
    "out_of_order",
    "per_opset",
    "qdq",
    "residual",
    "runtime_operator",
    "save",
    "sequence",
    "shape_subgraph",
    "single_node",
    "sparse_weight",
    "transformer",
    "unused_input",
    "value",
    "weight",
]

OPSETS = range(9, 24)

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
    "sparse_weight": sparse_weight,
    "float_fields": float_fields,
    **{f"opset{opset}": partial(per_opset, opset) for opset in OPSETS},
}
