"""Sizes that inference loses though nothing but the number of inputs is left open.

Exporters compute the shapes of reshapes from the input's own, so that the number of inputs stays open. Inference gives
up there, and with it every later tensor: a transformer's tokens would have no known shape at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from onnx import ModelProto, ValueInfoProto

from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_gateway.graph.weights import Weight
from splitbus_runtime.engine import open_session
from splitbus_schemas.errors import ModelError

_VALUES_DECIDE: Final = {
    "Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Range", "Scan", "StringSplit", "Unique",
}  # fmt: skip
"""Operators whose outputs' shapes values decide, not shapes alone."""


def settled(
    proto: ModelProto, specs: Mapping[str, TensorSpec], inputs: Sequence[TensorSpec], weights: Mapping[str, Weight]
) -> dict[str, TensorSpec]:
    """The specs, with numbers for all sizes but the first that are the same for one input and for two.

    `specs` has the sizes of a run with ones; here zeros are run, twice as many. Nothing is changed where more of the
    inputs than their number is open, where values may decide about shapes, or where the model does not take two.
    """
    open_ones = [name for name, spec in specs.items() if not all(isinstance(dim, int) for dim in spec.shape[1:])]
    if not open_ones or not _only_their_number_is_open(inputs):
        return dict(specs)
    if any(node.op_type in _VALUES_DECIDE for node in proto.graph.node):
        return dict(specs)
    model = ModelProto()
    model.CopyFrom(proto)
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in open_ones)
    feed = {spec.name: np.zeros((2 * spec.sizes[0], *spec.sizes[1:]), spec.dtype) for spec in inputs}
    try:
        arrays = {name: weight.array() for name, weight in weights.items()}
        session = open_session(model.SerializeToString(), weights=arrays, optimise=False, what="the model")
        values = session.run(feed, open_ones)
    except ModelError:
        return dict(specs)
    found = {name: _settle(specs[name], value.shape) for name, value in zip(open_ones, values, strict=True)}
    return {**specs, **found}


def _only_their_number_is_open(inputs: Sequence[TensorSpec]) -> bool:
    return bool(inputs) and all(
        spec.shape and not isinstance(spec.shape[0], int) and all(isinstance(dim, int) for dim in spec.shape[1:])
        for spec in inputs
    )


def _settle(spec: TensorSpec, twice: Sequence[int]) -> TensorSpec:
    if len(twice) != len(spec.sizes):
        return spec
    rest = zip(spec.shape[1:], spec.sizes[1:], twice[1:], strict=True)
    return replace(spec, shape=(*spec.shape[:1], *(one if one == two else dim for dim, one, two in rest)))
