from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from tests import models

from splitbus_gateway.graph import cut_at, random_feed
from splitbus_gateway.registry import Registry
from splitbus_gateway.slicing import SliceBook
from splitbus_runtime.engine import open_session
from splitbus_runtime.store import BlobStore
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ModelError
from splitbus_schemas.ids import model_key, sha256
from splitbus_schemas.messages import SliceManifest


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state", samples=1)


@pytest.fixture
def book(registry: Registry) -> SliceBook:
    return SliceBook(registry)


@pytest.fixture
def chain(registry: Registry, tmp_path: Path) -> str:
    return registry.add("chain", models.save(models.chain(), tmp_path)).model


def run(store: BlobStore, slice_id: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a node does: everything by hash from a store."""
    manifest = SliceManifest.from_json(store.read(slice_id))
    weights = {weight.name: store.weight(weight) for weight in manifest.weights}
    session = open_session(store.read(manifest.graph), weights=weights, threads=1)
    names = [spec.name for spec in manifest.outputs]
    found = session.run({spec.name: values[spec.name] for spec in manifest.inputs}, names)
    finals = {spec.name: values[spec.name] for spec in manifest.inputs if spec.final}
    return finals | dict(zip(names, found, strict=True))


def test_the_id_is_the_hash_of_the_manifest_and_all_blobs_are_there(
    registry: Registry, book: SliceBook, chain: str
) -> None:
    cut = registry.get("chain").card.cuts[1]
    made = book.slice_for(chain, 0, cut, "raw", "q8")
    assert made is not None
    slice_id, manifest = made
    assert sha256(manifest.to_json()) == slice_id
    assert SliceManifest.from_json(registry.store.read(slice_id)) == manifest
    assert (manifest.model, manifest.first, manifest.last) == (chain, 0, cut)
    assert (manifest.codec_in, manifest.codec_out) == ("raw", "q8")
    assert registry.store.size(manifest.graph) == manifest.graph_bytes
    assert all(registry.store.has(weight.sha256) for weight in manifest.weights)
    assert [spec.name.rpartition("::")[2] for spec in manifest.outputs] == ["q8", "q8.lo", "q8.step"]


@pytest.mark.parametrize("name", ["chain", "early_output", "inputs_outputs", "constant_weights", "float_fields"])
@pytest.mark.parametrize("codec", ["zstd", "f16", "q8"])
def test_slices_from_the_store_give_the_models_answer(
    registry: Registry, book: SliceBook, tmp_path: Path, name: str, codec: str
) -> None:
    path = models.save(models.CORPUS[name](), tmp_path)
    card = registry.add("model", path)
    graph = registry.graph(card.model)
    feed = random_feed(graph.inputs, seed=3)
    reference = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = dict(zip(graph.outputs, reference.run(list(graph.outputs), feed), strict=True))
    limit = {"zstd": 1e-5, "f16": 5e-3, "q8": 5e-2}[codec]
    for cut in card.cuts[1:]:
        head = book.slice_id(card.model, 0, cut, "raw", codec)
        tail = book.slice_id(card.model, cut, card.nodes, codec, "raw")
        assert head is not None
        assert tail is not None
        between = run(registry.store, head, feed)
        manifest = SliceManifest.from_json(registry.store.read(head))
        final = {spec.name for spec in manifest.outputs if spec.final}
        found = {n: a for n, a in between.items() if n in final} | run(registry.store, tail, between)
        assert set(graph.outputs) <= set(found)
        for output in graph.outputs:
            scale = np.abs(expected[output]).max()
            np.testing.assert_allclose(found[output], expected[output], atol=limit * scale, rtol=0)


def test_a_slice_is_made_once_and_again_when_the_store_lost_it(registry: Registry, book: SliceBook, chain: str) -> None:
    cut = registry.get("chain").card.cuts[1]
    made = book.slice_for(chain, cut, 9, "q8", "raw")
    assert made is not None
    assert book.slice_for(chain, cut, 9, "q8", "raw") is made
    registry.store.discard(made[1].graph)
    again = book.slice_for(chain, cut, 9, "q8", "raw")
    assert again == made
    assert registry.store.has(made[1].graph)


def test_codecs_with_the_same_nodes_share_a_slice(registry: Registry, book: SliceBook, chain: str) -> None:
    cut = registry.get("chain").card.cuts[1]
    ids = {codec: book.slice_id(chain, 0, cut, "raw", codec) for codec in CODECS}
    assert ids["raw"] == ids["zstd"]
    assert len(set(ids.values())) == len({codec.nodes for codec in CODECS.values()})


def test_at_the_inputs_only_a_codec_with_nodes_needs_a_slice(registry: Registry, book: SliceBook, chain: str) -> None:
    assert book.slice_id(chain, 0, 0, "raw", "raw") is None
    assert book.slice_id(chain, 0, 0, "raw", "zstd") is None
    coder = book.slice_id(chain, 0, 0, "raw", "q8")
    assert coder is not None
    feed = random_feed(registry.graph(chain).inputs)
    assert set(run(registry.store, coder, feed)) == {"x::q8", "x::q8.lo", "x::q8.step"}


def test_integer_inputs_need_no_slice_under_any_codec(registry: Registry, book: SliceBook, tmp_path: Path) -> None:
    nodes = [models.node("Cast", ["x"], ["f"], to=models.FLOAT), models.conv("f", "a"), models.conv("a", "y")]
    weights = [*models.conv_weights("a", 3, 3), *models.conv_weights("y", 3, 3)]
    proto = models.model(nodes, [models.value("x", [1, 3, 16, 16], 2)], [models.value("y", [1, 3, 16, 16])], weights)
    card = registry.add("bytes", models.save(proto, tmp_path))
    assert card.inputs[0].dtype == "uint8"
    assert {book.slice_id(card.model, 0, 0, "raw", codec) for codec in CODECS} == {None}


def test_blocks_make_up_the_model(registry: Registry, book: SliceBook, chain: str) -> None:
    record = registry.get("chain")
    request = book.profile_request(chain)
    assert request.model == chain
    assert request.cuts == [*record.card.cuts[1:], record.steps]
    assert len(request.blocks) == len(request.cuts)
    feed = random_feed(registry.graph(chain).inputs)
    values: dict[str, Any] = dict(feed)
    for block in request.blocks:
        values = run(registry.store, block, values)
    whole = run(registry.store, request.whole, feed)
    np.testing.assert_allclose(values["y"], whole["y"], atol=1e-5)


def test_models_without_a_cut_are_one_block(registry: Registry, book: SliceBook, tmp_path: Path) -> None:
    card = registry.add("one", models.save(models.single_node(), tmp_path))
    request = book.profile_request(card.model)
    assert request.cuts == [1]
    assert request.blocks == [request.whole]


def test_the_catalogue_follows_the_registry(registry: Registry, chain: str, tmp_path: Path) -> None:
    book = SliceBook(registry, codecs=("raw", "q4"))
    assert list(book.models()) == [model_key(chain)]
    assert book.models()[model_key(chain)].codings.codecs == ("raw", "q4")
    Registry(tmp_path / "state").remove("chain")
    assert book.models() == {}
    with pytest.raises(ModelError, match="is not registered"):
        book.slice_id(chain, 0, 9, "raw", "q8")
    with pytest.raises(ModelError, match="is not registered"):
        book.profile_request(chain)


def test_a_cut_that_is_not_legal_is_a_model_error(registry: Registry, book: SliceBook, tmp_path: Path) -> None:
    card = registry.add("sequence", models.save(models.sequence(), tmp_path))
    illegal = next(i for i in range(card.nodes) if not cut_at(registry.graph(card.model), i).legal)
    with pytest.raises(ModelError, match=f"cannot be cut at {illegal}: parts is of type sequence"):
        book.slice_for(card.model, 0, illegal)


def test_many_threads_get_one_slice(registry: Registry, book: SliceBook, chain: str) -> None:
    cut = registry.get("chain").card.cuts[1]
    found: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(book.slice_id(chain, 0, cut, "raw", "q8"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_slice_is_quick(registry: Registry, book: SliceBook, chain: str) -> None:
    cuts = registry.get("chain").card.cuts[1:]
    registry.graph(chain)
    started = time.perf_counter()
    for cut in cuts:
        book.slice_for(chain, cut, 9, "q8", "raw")
    assert (time.perf_counter() - started) / len(cuts) < 0.05
