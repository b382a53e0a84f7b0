from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - shows what onnxruntime makes of a slice
import pytest
from onnx import ModelProto
from tests import models

from splitbus_gateway.graph import SliceGraph, extract, load_graph, open_slice, random_feed
from splitbus_runtime.engine import open_session
from splitbus_schemas.errors import ModelError

from .conftest import Load


def parse(part: SliceGraph) -> ModelProto:
    return onnx.load_model_from_string(part.model)


def operators(part: SliceGraph) -> list[str]:
    return [node.op_type for node in parse(part).graph.node]


def optimised(part: SliceGraph, folder: Path) -> Counter[str]:
    """The operators that onnxruntime runs for a slice, opened as the engine opens it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    values = [ort.OrtValue.ortvalue_from_numpy(np.array(weight.array())) for weight in part.weights]
    options.add_external_initializers([weight.name for weight in part.weights], values)
    ort.InferenceSession(part.model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx", load_external_data=False).graph.node)


@pytest.mark.parametrize("name", models.CORPUS)
@pytest.mark.parametrize("codec", ["raw", "q4"])
def test_same_slice_same_bytes(tmp_path: Path, name: str, codec: str) -> None:
    path = models.save(models.CORPUS[name](), tmp_path)
    parts = [extract(graph, 0, 1, codec_out=codec) for graph in (load_graph(path), load_graph(path))]
    assert parts[0].model == parts[1].model
    assert parts[0].sha256 == parts[1].sha256


def test_slices_differ_by_range_and_codec(load: Load) -> None:
    graph = load(models.chain())
    parts = [
        extract(graph, 0, 2),
        extract(graph, 0, 3),
        extract(graph, 0, 2, codec_out="q8"),
        extract(graph, 0, 2, codec_out="zstd"),
    ]
    assert len({part.sha256 for part in parts}) == 3
    assert parts[0].sha256 == parts[3].sha256, "zstd needs no nodes"


def test_a_slice_names_only_the_weights_it_uses(load: Load) -> None:
    graph = load(models.chain())
    head, tail = extract(graph, 0, 4), extract(graph, 4, graph.steps)
    assert [weight.name for weight in (*head.weights, *tail.weights)] == ["b.w", "c.w"]
    assert {tensor.name for tensor in parse(head).graph.initializer} == {"a.w", "a.b", "b.w", "b.b"}
    assert len(head.model) < 2500


def test_weights_that_a_subgraph_reads_come_along(load: Load) -> None:
    graph = load(models.loop_capture())
    tail = extract(graph, 3, graph.steps)
    assert {tensor.name for tensor in parse(tail).graph.initializer} == {"w", "trips"}


def test_what_belongs_to_the_whole_model_is_kept(load: Load) -> None:
    proto = models.local_function()
    proto.metadata_props.add(key="labels", value="cat,dog")
    graph = load(proto)
    head = parse(extract(graph, 0, 1))
    tail = parse(extract(graph, 1, graph.steps))
    assert [(o.domain, o.version) for o in tail.opset_import] == [(o.domain, o.version) for o in proto.opset_import]
    assert tail.ir_version == proto.ir_version
    assert [(p.key, p.value) for p in tail.metadata_props] == [("labels", "cat,dog")]
    assert [function.name for function in tail.functions] == ["Swish", "Half"]
    assert not head.functions


def test_constant_nodes_are_repeated_where_they_are_needed(load: Load) -> None:
    graph = load(models.constant_subgraph())
    assert operators(extract(graph, 0, 1)) == ["ConstantOfShape", "Mul", "MatMul"]
    assert operators(extract(graph, 1, 2)) == ["Relu"]
    assert operators(extract(graph, 2, 3)) == ["ConstantOfShape", "Mul", "Transpose", "MatMul"]


def test_outputs_go_with_the_slice_that_makes_them(load: Load) -> None:
    graph = load(models.inputs_outputs())
    head, tail = extract(graph, 0, 2), extract(graph, 2, graph.steps)
    assert ([spec.name for spec in head.outputs], head.finished) == (["late", "y"], ("late", "y"))
    assert ([spec.name for spec in tail.outputs], tail.finished) == (["z", "kk"], ("z", "kk"))


def test_a_finished_output_that_is_read_on_travels_coded_and_is_given_as_it_is(load: Load) -> None:
    graph = load(models.early_output())
    head = extract(graph, 0, 2, codec_out="q8")
    assert [spec.name for spec in head.outputs] == ["mid::q8", "mid::q8.lo", "mid::q8.step", "mid"]


def test_what_passes_through_is_neither_decoded_nor_coded_again(load: Load) -> None:
    graph = load(models.early_output())
    nodes = operators(extract(graph, 2, 3, codec_in="q8", codec_out="q8"))
    assert nodes == ["Cast", "Mul", "Add", "ReduceMax"], "mid is decoded for its reader, and passed on as it came"


def test_one_codec_in_another_out(load: Load) -> None:
    graph = load(models.branches())
    middle = extract(graph, 1, 2, codec_in="q8", codec_out="q4")
    assert [spec.name for spec in middle.inputs] == ["a::q8", "a::q8.lo", "a::q8.step"]
    assert [spec.name for spec in middle.outputs] == [f"{n}::q4{part}" for n in "ab" for part in ("", ".lo", ".step")]
    open_slice(middle, threads=1)


def test_inputs_alone_can_be_coded(load: Load) -> None:
    graph = load(models.chain())
    feed = random_feed(graph.inputs)
    values = open_slice(extract(graph, 0, 0, codec_out="q8"), threads=1).run(feed)
    tail = extract(graph, 0, graph.steps, codec_in="q8")
    found = open_slice(tail, threads=1).run({spec.name: v for spec, v in zip(tail.inputs, values, strict=True)})[0]
    expected = open_session(graph.path, threads=1).run(feed)[0]
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(("first", "last"), [(3, 2), (2, 2)])
def test_a_slice_goes_forward(load: Load, first: int, last: int) -> None:
    with pytest.raises(ValueError, match=f"not from {first} to {last}"):
        extract(load(models.chain()), first, last)


def test_a_cut_that_is_not_legal_is_refused_by_its_reason(load: Load) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx cannot be cut at 2: parts is of type sequence"):
        extract(load(models.sequence()), 0, 2)


def test_slices_are_optimised_again(load: Load, tmp_path: Path) -> None:
    """Each part's activations are fused into its convolutions, as in the whole."""
    graph = load(models.chain())
    for first, last in ((0, 4), (4, graph.steps)):
        part = extract(graph, first, last)
        assert {"Relu", "LeakyRelu"} & set(operators(part))
        assert not {"Relu", "LeakyRelu"} & set(optimised(part, tmp_path))


def test_integer_kernels_survive_a_cut_between_8_bit_tensors(load: Load, tmp_path: Path) -> None:
    graph = load(models.qdq())
    found = [optimised(extract(graph, first, last), tmp_path) for first, last in ((0, 3), (3, graph.steps))]
    assert [counts["QLinearConv"] for counts in found] == [1, 1]
    assert found[1]["QLinearAdd"] == 1
