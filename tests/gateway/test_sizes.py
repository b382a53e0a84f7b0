from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from tests import models

from splitbus_gateway.graph import ModelGraph, cut_at, extract, load_graph, open_slice, useful_cuts
from splitbus_gateway.graph.images import ImageInput, frames_model
from splitbus_gateway.records import CodedSize
from splitbus_gateway.samples import Feed, synthetic_samples
from splitbus_gateway.sizes import Measured, measure
from splitbus_runtime.sameness import relative_error
from splitbus_schemas import packet
from splitbus_schemas.codecs import CODECS, SHIFTS, SINGLE, TRANSFORM
from splitbus_schemas.errors import ModelError

HEADER_BYTES = 1500  # of a job with these few tensors
PLAIN = [name for name, codec in CODECS.items() if not codec.pictures and codec.nodes != TRANSFORM]


def measured(graph: ModelGraph, samples: Sequence[Feed], cuts: Sequence[int] | None = None) -> Measured:
    indices = [0, *(cut.index for cut in useful_cuts(graph).cuts)] if cuts is None else cuts
    return measure(graph, [cut_at(graph, index) for index in indices], samples)


def by_key(result: Measured) -> dict[tuple[int, str], CodedSize]:
    return {(size.cut, size.codec): size for size in result.sizes}


@pytest.fixture
def chain(tmp_path: Path) -> ModelGraph:
    return load_graph(models.save(models.chain(), tmp_path))


def test_every_cut_and_codec_is_measured_with_progress(chain: ModelGraph) -> None:
    told: list[tuple[int, int]] = []
    cuts = [cut_at(chain, 0), *useful_cuts(chain).cuts]
    assert len(cuts) > 2
    result = measure(chain, cuts, synthetic_samples(chain.inputs, 3), progress=lambda *step: told.append(step))
    assert [(size.cut, size.codec) for size in result.sizes] == [(c.index, name) for c in cuts for name in PLAIN]
    assert told == [(done, len(cuts)) for done in range(len(cuts) + 1)]
    assert result.whole_ms > 0
    assert 40 < result.answer_bytes < 40 + HEADER_BYTES
    assert all(size.encode_ms > 0 and size.decode_ms > 0 for size in result.sizes)
    assert all(size.p50_bytes <= size.p90_bytes for size in result.sizes)


def test_the_bytes_are_those_that_the_slices_send(chain: ModelGraph) -> None:
    """What a head slice with the codec's nodes gives, coded as the plan says, less the header."""
    samples = synthetic_samples(chain.inputs, 5)
    cut = useful_cuts(chain).cuts[0].index
    sizes = by_key(measured(chain, samples, [cut]))
    for codec in map(CODECS.__getitem__, PLAIN):
        head = extract(chain, 0, cut, codec_out=codec.nodes or "raw")
        session = open_slice(head, threads=1)
        names = [spec.name for spec in head.outputs]
        sent = []
        for feed in samples:
            arrays = session.run(feed, names)
            tensors = [packet.pack_tensor(n, a, codec.coding) for n, a in zip(names, arrays, strict=True)]
            sent.append(sum(len(tensor.data) for tensor in tensors))
        assert 0 < sizes[cut, codec.name].p50_bytes - np.median(sent) < HEADER_BYTES, codec.name


def test_lossless_codecs_lose_nothing_and_lossy_ones_as_much_as_they_do(chain: ModelGraph, tmp_path: Path) -> None:
    """The figures are those of head and tail slices joined by the codec, against onnxruntime's own answer."""
    samples = synthetic_samples(chain.inputs, 6)
    cut = useful_cuts(chain).cuts[0].index
    sizes = by_key(measured(chain, samples, [cut]))
    reference = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    whole = [reference.run(["y"], feed)[0] for feed in samples]
    for codec in map(CODECS.__getitem__, PLAIN):
        size = sizes[cut, codec.name]
        if codec.lossless:
            assert (size.agreement, size.error) == (1.0, 0.0)
            continue
        head = open_slice(extract(chain, 0, cut, codec_out=codec.nodes), threads=1)
        tail = open_slice(extract(chain, cut, chain.steps, codec_in=codec.nodes), threads=1)
        errors, same = [], []
        for feed, expected in zip(samples, whole, strict=True):
            sent = dict(zip([info.name for info in head.outputs], head.run(feed), strict=True))
            found = tail.run(sent)[0]
            errors.append(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))
            same.append(found.argmax() == expected.argmax())
        assert size.error == pytest.approx(max(errors), rel=0.05, abs=2e-6)
        assert size.agreement <= np.mean(same)
    errors_by_codec = [sizes[cut, name].error or 0.0 for name in ("f16", "q8", "q4")]
    assert 0 < errors_by_codec[0] < errors_by_codec[1] < errors_by_codec[2]


def test_smaller_codecs_are_smaller(chain: ModelGraph) -> None:
    sizes = by_key(measured(chain, synthetic_samples(chain.inputs, 4), [0]))
    order = [sizes[0, name].p50_bytes for name in ("raw", "zstd", "f16", "q8", "q4")]
    assert order == sorted(order, reverse=True)
    assert sizes[0, "raw"].p50_bytes > 3 * 16 * 16 * 4


@pytest.mark.parametrize("name", ["early_output", "branches", "inputs_outputs", "symbolic_batch", "float16", "qdq"])
def test_unusual_graphs_are_measured(name: str, tmp_path: Path) -> None:
    graph = load_graph(models.save(models.CORPUS[name](), tmp_path))
    legal = [index for index in range(graph.steps) if cut_at(graph, index).legal]
    sizes = measured(graph, synthetic_samples(graph.inputs, 2), legal).sizes
    assert len(sizes) == len(legal) * len(PLAIN)
    for size in sizes:
        crossing = cut_at(graph, size.cut).nbytes
        if size.codec == "raw":
            assert size.p50_bytes >= crossing
        if CODECS[size.codec].lossless:
            assert (size.agreement, size.error) == (1.0, 0.0)


def test_answers_that_are_done_travel_with_the_cut(tmp_path: Path) -> None:
    """Behind the step that makes it, `score` waits in the packet for the rest of the answer, beside `mid`."""
    graph = load_graph(models.save(models.early_output(), tmp_path))
    made = graph.topology.outputs["score"]
    sizes = by_key(measured(graph, synthetic_samples(graph.inputs, 1), [made]))
    tensors = sum(tensor.nbytes for tensor in cut_at(graph, made).tensors)
    assert sizes[made, "raw"].p50_bytes > tensors + 4


def test_inputs_that_the_model_refuses_are_a_model_error(chain: ModelGraph) -> None:
    with pytest.raises(ModelError, match="could not run"):
        measured(chain, [{"x": np.zeros((1, 5, 16, 16), np.float32)}])


# Pictures -------------------------------------------------------------------------------------------------------------


def frames_chain(tmp_path: Path, *, beside: bool = False) -> ModelGraph:
    """The chain with an input that takes frames of 64x64; `beside`, a second input is added to the answer."""
    proto = models.chain()
    proto.graph.input[0].CopyFrom(models.value("x", [1, 3, 64, 64]))
    if beside:
        proto.graph.node[-1].output[0] = "scores"
        proto.graph.node.append(models.node("Add", ["scores", "bias"], ["y"]))
        proto.graph.input.append(models.value("bias", [1, 10]))
    return load_graph(models.save(frames_model(proto, ImageInput("x"), "chain"), tmp_path))


def test_pictures_are_measured_where_one_crosses_and_nowhere_else(tmp_path: Path) -> None:
    """The tail's answer to the very pixels that a worker decodes, against the answer to those that were sent."""
    graph = frames_chain(tmp_path)
    samples = synthetic_samples(graph.inputs, 5)
    result = measured(graph, samples)
    sizes = by_key(result)
    assert {codec for cut, codec in sizes if cut == 0} == set(SINGLE) - set(SHIFTS)
    assert {codec for cut, codec in sizes if cut} == set(PLAIN)
    whole = open_slice(extract(graph, 0, graph.steps), threads=1)
    for codec in (codec for codec in CODECS.values() if codec.pictures):
        tensors = [packet.pack_tensor("x", feed["x"], codec.coding) for feed in samples]
        size = sizes[0, codec.name]
        assert 0 < size.p50_bytes - np.median([len(tensor.data) for tensor in tensors]) < HEADER_BYTES
        answers = [whole.run(feed)[0] for feed in samples]
        errors = [
            relative_error(answer, whole.run({"x": packet.unpack_tensor(tensor)})[0])
            for answer, tensor in zip(answers, tensors, strict=True)
        ]
        assert size.error == pytest.approx(max(errors), abs=1e-6)
        assert (size.agreement == 1.0) or not codec.lossless
    assert 0 < (sizes[0, "jpeg95"].error or 0) < (sizes[0, "jpeg50"].error or 0)
    order = [sizes[0, name].p50_bytes for name in ("raw", "webpll", "jpeg95", "jpeg85", "jpeg75", "jpeg50")]
    assert order == sorted(order, reverse=True)


def test_what_crosses_beside_a_picture_travels_losslessly(tmp_path: Path) -> None:
    graph = frames_chain(tmp_path, beside=True)
    sizes = by_key(measured(graph, synthetic_samples(graph.inputs, 2), [0]))
    alone = by_key(measured(frames_chain(tmp_path), synthetic_samples(graph.inputs[:1], 2), [0]))
    assert 40 < sizes[0, "raw"].p50_bytes - alone[0, "raw"].p50_bytes < 100
    assert sizes[0, "jpeg85"].p50_bytes < sizes[0, "raw"].p50_bytes
    assert (sizes[0, "webpll"].error, sizes[0, "webpll"].agreement) == (0.0, 1.0)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_the_inputs_of_an_integer_model_are_a_cut_like_any_other(tmp_path: Path, dtype: str) -> None:
    number = {"uint8": 2, "int8": 3}[dtype]
    nodes = [models.node("Cast", ["x"], ["f"], to=models.FLOAT), models.conv("f", "a"), models.conv("a", "y")]
    weights = [*models.conv_weights("a", 3, 3), *models.conv_weights("y", 3, 3)]
    shape = [1, 3, 16, 16]
    proto = models.model(nodes, [models.value("x", shape, number)], [models.value("y", shape)], weights)
    graph = load_graph(models.save(proto, tmp_path))
    sizes = by_key(measured(graph, synthetic_samples(graph.inputs, 2), [0]))
    assert {codec for _, codec in sizes} == set(PLAIN)
    for codec in ("raw", "zstd"):
        assert (sizes[0, codec].agreement, sizes[0, codec].error) == (1.0, 0.0)
    assert sizes[0, "raw"].p50_bytes < 3 * 16 * 16 + HEADER_BYTES
