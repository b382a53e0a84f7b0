"""Every model of the corpus, at every legal cut, under every codec."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from tests import models

from splitbus_gateway.graph import (
    SliceGraph,
    all_cuts,
    extract,
    legal_cuts,
    load_graph,
    open_slice,
    random_feed,
    verify,
)
from splitbus_gateway.graph.feeds import ones_feed
from splitbus_gateway.graph.tensors import TensorSpec
from splitbus_runtime.engine import Array, open_session

from .conftest import Load

LOSS = {"f16": 0.05, "q8": 0.05, "q4": 0.6}
ILLEGAL = {"sequence": "parts is of type sequence", "bfloat16": "narrow is of type bfloat16"}


@pytest.mark.parametrize("name", models.CORPUS)
def test_head_and_tail_answer_as_the_whole_at_every_cut(load: Load, name: str) -> None:
    graph = load(models.CORPUS[name]())
    checks = verify(graph, threads=1)
    assert [check.index for check in checks] == [cut.index for cut in legal_cuts(graph)]
    assert len(checks) >= 2
    assert not [check for check in checks if not check.ok]


@pytest.mark.parametrize("name", models.CORPUS)
def test_only_what_cannot_travel_makes_a_cut_illegal(load: Load, name: str) -> None:
    reasons = {cut.reason for cut in all_cuts(load(models.CORPUS[name]())) if not cut.legal}
    expected = ILLEGAL.get(name)
    assert reasons == ({f"{expected}, which packets do not carry"} if expected else set())


@pytest.mark.parametrize("codec", LOSS)
@pytest.mark.parametrize("name", models.CORPUS)
def test_codecs_leave_the_answer_near(load: Load, name: str, codec: str) -> None:
    graph = load(models.CORPUS[name]())
    checks = verify(graph, codec=codec, tolerance=LOSS[codec], threads=1)
    assert not [check for check in checks if not check.ok]


@pytest.mark.parametrize("name", models.CORPUS)
def test_what_a_cut_says_is_what_crosses_it(load: Load, name: str) -> None:
    """Names, types, shapes and bytes, against the arrays that the head gives."""
    graph = load(models.CORPUS[name]())
    feed = ones_feed(graph.inputs)
    for cut in legal_cuts(graph):
        head = extract(graph, 0, cut.index, codec_out="q4")
        results = open_slice(head, threads=1).run({spec.name: feed[spec.name] for spec in head.inputs})
        for spec, array in zip(head.outputs, results, strict=True):
            if name != "data_dependent":
                assert (array.dtype.name, array.shape, array.nbytes) == (spec.dtype, spec.sizes, spec.nbytes)
            fixed = [(dim, size) for dim, size in zip(spec.shape, array.shape, strict=True) if isinstance(dim, int)]
            assert all(dim == size for dim, size in fixed)


@pytest.mark.parametrize("codec", ["raw", "f16", "q8", "q4"])
@pytest.mark.parametrize("name", ["chain", "branches", "early_output", "inputs_outputs", "shape_subgraph", "qdq"])
def test_three_slices_in_a_row(load: Load, name: str, codec: str) -> None:
    """Every pair of cuts: what only passes through the middle slice comes out as it came in."""
    graph = load(models.CORPUS[name]())
    feed = random_feed(graph.inputs)
    expected = dict(zip(graph.outputs, open_session(graph.path, threads=1).run(feed, graph.outputs), strict=True))
    inside = [cut for cut in legal_cuts(graph)[1:-1] if name != "qdq" or not any(t.is_float for t in cut.tensors)]
    for first, last in itertools.combinations([cut.index for cut in inside], 2):
        values = _relay(
            [
                extract(graph, 0, first, codec_out=codec),
                extract(graph, first, last, codec_in=codec, codec_out=codec),
                extract(graph, last, graph.steps, codec_in=codec),
            ],
            feed,
        )
        for output, answer in expected.items():
            difference = np.abs(values[output] - answer).max()
            assert difference <= LOSS.get(codec, 1e-4) * np.abs(answer).max(), (first, last, output)


def _relay(parts: list[SliceGraph], feed: dict[str, Array]) -> dict[str, Array]:
    values = dict(feed)
    for part in parts:
        given = {spec.name: values[spec.name] for spec in part.inputs}
        names = (spec.name for spec in part.outputs)
        found = dict(zip(names, open_slice(part, threads=1).run(given), strict=True))
        assert all(np.array_equal(found[name], given[name]) for name in found.keys() & given.keys())
        values.update(found)
    return values


@pytest.mark.parametrize("name", ["symbolic_batch", "shape_subgraph", "inputs_outputs", "opset9", "opset23"])
@pytest.mark.parametrize("codec", ["raw", "q8", "q4"])
def test_a_batch_larger_than_the_one_planned_with(load: Load, name: str, codec: str) -> None:
    graph = load(models.CORPUS[name]())
    feed = random_feed(TensorSpec(s.name, s.dtype, s.shape, (5, *s.sizes[1:])) for s in graph.inputs)
    checks = verify(graph, feeds=[feed], codec=codec, tolerance=LOSS.get(codec), threads=1)
    assert not [check for check in checks if not check.ok]


def test_external_data(tmp_path: Path) -> None:
    graph = load_graph(models.external(tmp_path))
    assert [file.name for file in graph.files] == ["model.onnx", "model.data"]
    assert {weight.file for weight in graph.weights.values()} == {tmp_path / "model.data"}
    assert all(check.ok for check in verify(graph, threads=1))


@pytest.mark.slow
def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    """The weights lie in a sparse file; reading the graph must not read them into it."""
    graph = load_graph(models.huge(tmp_path))
    assert graph.files[1].size > 2**31
    assert graph.proto.ByteSize() < 10_000
    assert graph.weights["table"].nbytes == graph.files[1].size
    feed = {"x": np.array([0, 3, 1], np.int64)}
    assert np.abs(open_session(graph.path, threads=1).run(feed)[0]).max() > 0.1, "the rows read are not the zero ones"
    checks = verify(graph, cuts=[3], feeds=[feed], threads=1)
    assert [(check.index, check.max_abs, check.ok) for check in checks] == [(3, 0.0, True)]
    assert [weight.name for weight in extract(graph, 3, graph.steps).weights] == ["w"]
