from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper
from tests import models

from splitbus_gateway.graph import Cut, ModelGraph, all_cuts, cut_at, load_graph, useful_cuts, verify
from splitbus_gateway.graph.topology import arrange

from .conftest import Load


def names(cut: Cut) -> list[str]:
    return [tensor.name for tensor in cut.tensors]


def useful(graph: ModelGraph, ratio: float = math.inf) -> list[list[str]]:
    return [names(cut) for cut in useful_cuts(graph, ratio=ratio).cuts]


def test_both_ends(load: Load) -> None:
    graph = load(models.branches())
    cuts = all_cuts(graph)
    assert [cut.index for cut in cuts] == list(range(graph.steps + 1))
    assert (names(cuts[0]), cuts[0].finished, cuts[0].after) == (["x"], (), "")
    assert (names(cuts[-1]), cuts[-1].finished, cuts[-1].after) == ([], ("y",), "y.conv (Conv)")
    with pytest.raises(IndexError, match="cuts 0 to 7, not 8"):
        cut_at(graph, 8)


def test_several_tensors_cross_where_branches_run_beside_one_another(load: Load) -> None:
    cuts = all_cuts(load(models.branches()))
    assert [names(cut) for cut in cuts] == [
        ["x"],
        ["a"],
        ["a", "b"],
        ["a", "d"],
        ["a", "d", "c"],
        ["d", "c", "m"],
        ["j"],
        [],
    ]
    assert cuts[2].nbytes == 4 * 64 * (8 + 4)


def test_the_best_cut_is_found_whatever_the_order_in_the_file(load: Load) -> None:
    """Behind both narrow places; no beginning of the file's order has less than 16 times its bytes."""
    graph = load(models.hidden_cut())
    found = {frozenset(names(cut)): cut for cut in useful_cuts(graph).cuts}
    best = found[frozenset({"a2", "b1"})]
    assert best.nbytes == 2 * 2 * 4 * 4 * 4
    as_in_the_file = replace(graph, topology=arrange(models.hidden_cut().graph))
    assert min(cut.nbytes for cut in all_cuts(as_in_the_file)[1:-2]) >= 8 * best.nbytes
    assert [check.ok for check in verify(graph, cuts=[best.index], threads=1)] == [True]


@pytest.mark.parametrize("name", ["chain", "residual", "qdq", "transformer", "early_output", "if_capture"])
def test_where_there_is_nothing_to_gain_the_order_is_the_files(load: Load, name: str) -> None:
    graph = load(models.CORPUS[name]())
    before = arrange(graph.proto.graph)
    assert [step.output[0] for step in graph.topology.steps] == [step.output[0] for step in before.steps]


def test_an_output_made_early_does_not_cross_unless_it_is_read_on(load: Load) -> None:
    cuts = all_cuts(load(models.early_output()))
    assert [(names(cut), cut.finished) for cut in cuts[2:5]] == [
        (["mid"], ("mid",)),
        (["mid"], ("score", "mid")),
        (["b"], ("score", "mid")),
    ]


def test_inputs_cross_until_they_are_read(load: Load) -> None:
    graph = load(models.inputs_outputs())
    cuts = all_cuts(graph)
    assert names(cuts[1]) == ["late", "a"]
    assert names(cuts[-1]) == []
    assert cuts[1].finished == ("late",), "an input that is an output needs no slice"
    assert graph.steps == 5, "the constant product is no step"


def test_an_input_that_nobody_reads_never_crosses(load: Load) -> None:
    assert all("nobody_reads_me" not in names(cut) for cut in all_cuts(load(models.unused_input())))


def test_constants_never_cross(load: Load) -> None:
    graph = load(models.constant_subgraph())
    assert [names(cut) for cut in all_cuts(graph)] == [["x"], ["a"], ["b"], ["c"], ["d"], []]


def test_tensors_that_subgraphs_read_cross(load: Load) -> None:
    cuts = {cut.after.partition(" ")[0]: names(cut) for cut in all_cuts(load(models.if_capture()))}
    assert cuts["h"] == ["early", "h"]
    assert cuts["cond"] == ["early", "h", "cond"]
    assert cuts["z"] == ["z"]
    cuts = {cut.after.partition(" ")[0]: names(cut) for cut in all_cuts(load(models.loop_capture()))}
    assert cuts["begin"] == ["outer", "start", "begin"]


def test_shapes_are_measured_early(load: Load) -> None:
    """Behind the last reader of b, one number crosses in its place, not the four that are made of it later."""
    cuts = {cut.after.partition(" ")[0]: cut for cut in all_cuts(load(models.shape_subgraph()))}
    assert names(cuts["c.conv"]) == ["rows", "c"]


def test_quantised_tensors_cross_in_8_bits(load: Load) -> None:
    """Also the one that two nodes read through the same DequantizeLinear."""
    graph = load(models.qdq())
    assert useful(graph, 1.0) == [["xdq"], ["cdq"]]
    inside = next(cut for cut in all_cuts(graph) if cut.after.startswith("quantize_ed"))
    assert [(t.name, t.dtype) for t in inside.tensors] == [("cdq", "uint8"), ("edq", "uint8")]


def test_dead_nodes_are_no_steps(load: Load) -> None:
    assert load(models.dead_nodes()).steps == load(models.residual()).steps


def test_useful_cuts_lie_behind_what_is_fused(load: Load) -> None:
    assert useful(load(models.chain())) == [["ar"], ["br"], ["f"]]
    assert useful(load(models.residual())) == [["ar"], ["ar", "br"]]


def test_input_reworked_is_not_more_useful_than_the_input(load: Load) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    graph = load(
        models.model(nodes, [models.value("x", [1, 8])], [models.value("y", [1, 8])], [models.weight("w", 8, 8)])
    )
    found = useful_cuts(graph)
    assert found.cuts == ()
    assert "only light work" in found.reason


def test_without_a_useful_cut_there_is_a_reason(load: Load) -> None:
    graph = load(models.no_useful_cut())
    assert useful_cuts(graph).reason.endswith("carries more than its inputs: 4096 bytes against 256")
    assert useful_cuts(graph, ratio=16.0).cuts
    assert useful_cuts(load(models.single_node())).reason.endswith("has one node only")


def test_without_a_legal_cut_the_reason_names_the_tensor(tmp_path: Path) -> None:
    proto = models.residual()
    proto.graph.node.append(helper.make_node("Cast", ["y"], ["narrow"], to=TensorProto.BFLOAT16))
    proto.graph.output.append(models.value("narrow", [1, 8, 9, 7], TensorProto.BFLOAT16))
    graph = load_graph(models.save(proto, tmp_path))
    assert not any(cut.legal for cut in all_cuts(graph))
    assert "narrow is of type bfloat16, which packets do not carry" in useful_cuts(graph).reason
