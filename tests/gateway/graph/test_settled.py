"""Sizes that inference loses because the number of inputs is open, and those that stay open."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto, NodeProto
from tests import models
from tests.models import constant, node, value

from splitbus_gateway.graph import ModelGraph, load_graph


def tokens(*, length: str | int = 6, last: tuple[NodeProto, ...] = ()) -> ModelProto:
    """Reshapes by what it computes from its input's shape, as exporters write them; then a nonlinearity."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["count"], axis=0),
        node("Concat", ["count", "rest"], ["wanted"], axis=0),
        node("Reshape", ["x", "wanted"], ["split"]),
        node("Abs", ["wanted"], ["again"]),
        node("Reshape", ["split", "again"], ["heads"]),
        node("Tanh", ["heads"], ["y"]),
        *(last or [node("Relu", ["y"], ["z"])]),
    ]
    weights = [constant("zero", [0], "int64"), constant("rest", [2, 3, 4], "int64")]
    return models.model(nodes, [value("x", ["n", length, 4])], [value("z", [None] * (2 if last else 4))], weights)


def shape_of(proto: ModelProto, folder: Path, name: str = "heads") -> tuple[object, ...]:
    graph: ModelGraph = load_graph(models.save(proto, folder))
    assert graph.types.specs[name].sizes == (1, 2, 3, 4)
    return graph.types.specs[name].shape


def test_what_one_and_two_inputs_share_is_no_symbol(tmp_path: Path) -> None:
    count, *rest = shape_of(tokens(), tmp_path)
    assert rest == [2, 3, 4]
    assert not isinstance(count, int)


@pytest.mark.parametrize(
    ("proto", "why"),
    [
        (tokens(last=(node("NonZero", ["y"], ["p"]), node("Cast", ["p"], ["z"], to=1))), "values decide about shapes"),
        (tokens(length="length"), "more than the number of inputs is open"),
    ],
    ids=["values", "length"],
)
def test_the_rest_stays_open(tmp_path: Path, proto: ModelProto, why: str) -> None:
    path = models.save(proto, tmp_path)
    shapes = {"x": (1, 6, 4)}
    spec = load_graph(path, shapes=shapes).types.specs["heads"]
    assert not all(isinstance(dim, int) for dim in spec.shape[1:]), why
    assert spec.sizes == (1, 2, 3, 4)
