"""A small classifier and pictures for it, so that the examples run without a file of yours; needs `onnx`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS = (3, 16, 32, 64)


def small_model() -> bytes:
    """Three convolutions of stride 2, a pool and a classifier: float32 [1, 3, 64, 64] to [1, 10]."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "image"
    for layer, (inn, out) in enumerate(pairwise(CHANNELS)):
        kernel = rng.standard_normal((out, inn, 3, 3)) * (2 / (9 * inn)) ** 0.5
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{layer}"))
        nodes += [
            helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]),
        ]
        last = f"r{layer}"
    weights.append(numpy_helper.from_array(rng.standard_normal((CHANNELS[-1], 10)).astype(np.float32), "classes"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "classes"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "small", [image], [scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def pictures(shape: list[Any], count: int = 20) -> Iterator[NDArray[np.float32]]:
    """What a camera would deliver: `count` arrays of a model's input shape, 1 where it is open."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield rng.random([size if isinstance(size, int) else 1 for size in shape], np.float32)
