"""From `model add --calibrate` to slices that pass coefficients on: registry, sizes, slices, shelf, worker's stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from onnx import ModelProto
from tests.models import CORPUS, conv, conv_weights, model, node, save, value, weight

from splitbus_gateway.graph import Cut, TensorSpec, load_graph
from splitbus_gateway.registry import Registry
from splitbus_gateway.samples import synthetic_samples
from splitbus_gateway.slicing import SliceBook
from splitbus_gateway.transform.archive import ARCHIVE, read_archive, write_archive
from splitbus_gateway.transform.model import MAX_CUTS, promising
from splitbus_runtime.engine import Array
from splitbus_runtime.shelf import Shelf, Slice
from splitbus_schemas.codecs import SHIFTS
from splitbus_schemas.entropy import Coder
from splitbus_schemas.entropy_tables import make_tables
from splitbus_schemas.errors import DecodeError, ModelError
from splitbus_schemas.ids import model_key
from splitbus_schemas.packet import pack_tensor, unpack_tensor

SIDE = 24


def network(batch: int | str = 1) -> ModelProto:
    """Convolutions with two branches that meet when they are small: behind both, two tensors cross."""
    nodes = [
        conv("x", "a"),
        node("Relu", ["a"], ["ar"]),
        conv("ar", "b", strides=[2, 2]),
        node("Relu", ["b"], ["br"]),
        conv("ar", "c", strides=[2, 2]),
        node("Relu", ["c"], ["cr"]),
        conv("br", "d"),
        conv("cr", "e"),
        node("Add", ["d", "e"], ["s"]),
        node("GlobalAveragePool", ["s"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "g.w", "g.b"], ["y"]),
    ]
    weights = [*conv_weights("a", 8, 3), *conv_weights("b", 12, 8), *conv_weights("c", 12, 8)]
    weights += [*conv_weights("d", 12, 12), *conv_weights("e", 12, 12)]
    weights += [weight("g.w", 12, 10), weight("g.b", 10)]
    return model(nodes, [value("x", [batch, 3, SIDE, SIDE])], [value("y", [batch, 10])], weights)


def pictures(count: int, seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [np.sin(2 * np.pi * (rows * a + columns * b + c)) for a, b, c in rng.uniform(0, 2, (3 * count, 3))]
    return list(np.stack(waves).reshape(count, 1, 3, SIDE, SIDE).astype(np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrated")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Registry:
    made = Registry(folder / "state", max_input_ratio=4.0)
    made.add("net", save(network(), folder), calibrate=pictures(48))
    return made


def open_at(registry: Registry, first: int, last: int, codec_in: str, codec_out: str) -> Slice:
    slice_id = SliceBook(registry).slice_id(registry.get("net").model, first, last, codec_in, codec_out)
    assert slice_id is not None
    return Shelf(registry.store, _nothing_to_fetch, threads=1).open(slice_id)


def _nothing_to_fetch(sha256: str) -> None:
    raise AssertionError(f"{sha256} is not in the store")


def crossed(piece: Slice, values: dict[str, Array], coding: str, after: Slice) -> dict[str, Array]:
    """What one node makes, as the next one reads it."""
    wanted = {spec.name for spec in after.manifest.inputs}
    made = [(name, array) for name, array, _ in piece.run(values) if name in wanted]
    tensors = [pack_tensor(name, array, coding, coder=piece.coders.get(name)) for name, array in made]
    return {tensor.name: unpack_tensor(tensor, after.coders.get(tensor.name)) for tensor in tensors}


def coded_cuts(registry: Registry) -> list[int]:
    return sorted({size.cut for size in registry.get("net").sizes if size.codec == "t4"})


def test_calibration_is_on_one_half_and_measured_on_the_other(registry: Registry) -> None:
    record = registry.get("net")
    assert record.sample_count == 24
    assert set(registry.transforms(record.model)) >= {"x", "ar", "br", "cr"}
    cuts = coded_cuts(registry)
    assert 0 in cuts
    assert {len(cut.tensors) for cut in record.cuts if cut.index in cuts} == {1, 2}
    facts = record.facts()
    columns = [facts.codings.codecs.index(name) for name in SHIFTS]
    for row, cut in enumerate(facts.codings.cuts[:-1]):
        assert np.isfinite(facts.codings.coded_bytes[row, columns]).all() == (cut in cuts)
    for cut in cuts:
        of = {size.codec: size for size in record.sizes if size.cut == cut}
        sizes = [of[name].p50_bytes for name in SHIFTS]
        assert sizes == sorted(sizes, reverse=True)
        assert of["t12"].p50_bytes < of["q4"].p50_bytes
        assert of["t1"].agreement > 0.9
        assert (of["t1"].error or 0) < (of["t6"].error or 0) < (of["t12"].error or 0)


@pytest.mark.parametrize("codec", SHIFTS)
def test_head_and_tail_give_the_models_answer_at_every_cut(registry: Registry, folder: Path, codec: str) -> None:
    reference = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    record, x = registry.get("net"), pictures(1, seed=5)[0]
    expected = reference.run(["y"], {"x": x})[0]
    for cut in coded_cuts(registry):
        head, tail = open_at(registry, 0, cut, "raw", codec), open_at(registry, cut, record.steps, codec, "raw")
        assert head.coders.keys() == tail.coders.keys() == {table.tensor for table in head.manifest.tables}
        came = crossed(head, {"x": x}, codec, tail)
        ((_, found, _),) = tail.run(came)
        allowed = {"t1": 0.02, "t4": 0.1}.get(codec, 1.0)
        assert np.abs(found - expected).max() <= allowed * np.abs(expected).max(), cut


def test_a_node_between_passes_on_and_codes_again(registry: Registry, folder: Path) -> None:
    reference = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    record, x = registry.get("net"), pictures(1, seed=6)[0]
    first, second = coded_cuts(registry)[1], coded_cuts(registry)[-1]
    parts = [
        open_at(registry, 0, first, "raw", "t2"),
        open_at(registry, first, second, "t2", "t3"),
        open_at(registry, second, record.steps, "t3", "raw"),
    ]
    values = crossed(parts[0], {"x": x}, "t2", parts[1])
    values = crossed(parts[1], values, "t3", parts[2])
    ((_, found, _),) = parts[2].run(values)
    expected = reference.run(["y"], {"x": x})[0]
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_one_slice_serves_every_strength(registry: Registry) -> None:
    book, record, cut = SliceBook(registry), registry.get("net"), coded_cuts(registry)[1]
    assert len({book.slice_id(record.model, 0, cut, "raw", name) for name in SHIFTS}) == 1
    assert len({book.slice_id(record.model, cut, record.steps, name, "raw") for name in SHIFTS}) == 1
    made = book.slice_for(record.model, 0, cut, "raw", "t5")
    assert made is not None
    size = book.slice_size(made[0])
    assert size is not None
    assert all(registry.store.size(table.sha256) == table.bytes for table in made[1].tables)
    plain = book.slice_for(record.model, 0, cut, "raw", "q8")
    assert plain is not None
    assert plain[1].tables == []


def test_other_tables_are_refused_and_never_a_wrong_tensor(registry: Registry) -> None:
    record, cut = registry.get("net"), coded_cuts(registry)[1]
    head, tail = open_at(registry, 0, cut, "raw", "t5"), open_at(registry, cut, record.steps, "t5", "raw")
    other = {
        name: Coder(make_tables(coder.tables.levels + np.int8(1), coder.tables.first, coder.tables.frequencies))
        for name, coder in tail.coders.items()
    }
    for coders in (other, {}):
        with pytest.raises(DecodeError):
            crossed(head, {"x": pictures(1)[0]}, "t5", replace(tail, coders=coders))


def test_tables_that_cannot_be_read_are_a_model_error(registry: Registry) -> None:
    cut = coded_cuts(registry)[1]
    made = SliceBook(registry).slice_for(registry.get("net").model, 0, cut, "raw", "t5")
    assert made is not None
    bad = made[1].model_copy(update={"tables": [made[1].tables[0].model_copy(update={"sha256": made[1].graph})]})
    with pytest.raises(ModelError, match="tables that cannot be read"):
        Shelf(registry.store, _nothing_to_fetch, threads=1).open(registry.store.put(bad.to_json()))


def test_not_a_number_stays_not_a_number(registry: Registry) -> None:
    record, cut, x = registry.get("net"), coded_cuts(registry)[1], pictures(1)[0]
    x[0, 0, 3, 3] = np.nan
    head, tail = open_at(registry, 0, cut, "raw", "t5"), open_at(registry, cut, record.steps, "t5", "raw")
    ((_, found, _),) = tail.run(crossed(head, {"x": x}, "t5", tail))
    assert np.isnan(found).all()


def test_several_frames_in_a_batch(tmp_path: Path) -> None:
    made = Registry(tmp_path / "state", max_input_ratio=4.0)
    path = save(network("N"), tmp_path)
    made.add("net", path, calibrate=pictures(48))
    cut = coded_cuts(made)[1]
    head, tail = open_at(made, 0, cut, "raw", "t3"), open_at(made, cut, made.get("net").steps, "t3", "raw")
    x = np.concatenate(pictures(5, seed=8))
    ((_, found, _),) = tail.run(crossed(head, {"x": x}, "t3", tail))
    expected = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name", ["qdq", "float16", "float64", "early_output", "branches", "transformer", "inputs_outputs", "residual"]
)
def test_any_model_is_calibrated_or_sent_as_before(name: str, tmp_path: Path) -> None:
    """Head and tail under the safest strength, whatever crosses: 8 bits, half precision, several tensors, token ids."""
    path = save(CORPUS[name](), tmp_path)
    feeds = synthetic_samples(load_graph(path).inputs, 17)
    made = Registry(tmp_path / "state", max_input_ratio=100.0)
    made.add("net", path, calibrate=feeds[:16])
    record, graph = made.get("net"), load_graph(path)
    reference = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = dict(zip(graph.outputs, reference.run(list(graph.outputs), dict(feeds[16])), strict=True))
    for cut in [cut.index for cut in record.cuts if cut.index]:
        head, tail = open_at(made, 0, cut, "raw", "t1"), open_at(made, cut, record.steps, "t1", "raw")
        early = {name: array for name, array, final in head.run(feeds[16]) if final}
        found = early | {name: array for name, array, _ in tail.run(crossed(head, dict(feeds[16]), "t1", tail))}
        for output, array in expected.items():
            assert found[output].dtype == array.dtype
            scale = float(np.abs(array).max())
            np.testing.assert_allclose(found[output], array, atol=0.1 * scale, rtol=0, err_msg=f"{output} at {cut}")


# Kept, and forgotten --------------------------------------------------------------------------------------------------


def test_another_process_sees_what_was_calibrated(registry: Registry, folder: Path) -> None:
    other, key = Registry(folder / "state"), registry.get("net").model
    assert other.transforms(key).keys() == registry.transforms(key).keys()
    for name, one in other.transforms(key).items():
        assert one.tables.id == registry.transforms(key)[name].tables.id


def test_adding_again_without_calibration_forgets_it(tmp_path: Path) -> None:
    made, path = Registry(tmp_path / "state"), save(network(), tmp_path)
    key = made.add("net", path, calibrate=pictures(16)).model
    assert "x" in made.transforms(key)
    made.add("net", path, pictures(4))
    assert made.transforms(key) == {}
    assert coded_cuts(made) == []
    assert not (tmp_path / "state" / "files" / model_key(key) / ARCHIVE).exists()


def test_another_calibration_makes_other_slices(tmp_path: Path) -> None:
    made, path = Registry(tmp_path / "state"), save(network(), tmp_path)
    model, book, found = made.add("net", path, calibrate=pictures(16)).model, SliceBook(made), set()
    for seed in (1, 2, 2):
        made.add("net", path, calibrate=pictures(16, seed))
        head, tail = (book.slice_for(model, *ends) for ends in ((0, 0, "raw", "t5"), (0, 8, "t5", "raw")))
        assert head is not None
        assert tail is not None
        assert head[1].tables == tail[1].tables
        found.add(head[0])
    assert len(found) == 2


def test_too_few_pictures_are_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="7 samples are too few"):
        Registry(tmp_path / "state").add("net", save(network(), tmp_path), calibrate=pictures(14))


def test_samples_beside_calibration_are_what_is_measured(tmp_path: Path) -> None:
    made = Registry(tmp_path / "state", max_input_ratio=4.0)
    made.add("net", save(network(), tmp_path), pictures(5, seed=3), calibrate=pictures(16))
    assert made.get("net").sample_count == 5
    assert coded_cuts(made)


def test_an_archive_comes_back_or_is_refused(registry: Registry) -> None:
    found = registry.transforms(registry.get("net").model)
    data = write_archive(found)
    assert write_archive(read_archive(data)) == data
    for bad in (b"", data[:-50], data[: len(data) // 2], b"x" * 100):
        with pytest.raises(ModelError, match="add it again"):
            read_archive(bad)


def cuts(sizes: Sequence[int]) -> list[Cut]:
    return [
        Cut(index, (TensorSpec(f"t{index}", "float32", (1, size // 64, 8, 8), (1, size // 64, 8, 8)),), (), "", "")
        for index, size in enumerate(sizes)
    ]


def test_a_token_more_and_a_few_sizes_make_no_other_cut() -> None:
    """As exported transformers have it: integers that are shapes cross with the tokens, and one token is added."""
    shape = TensorSpec("shape", "int64", (4,), (4,))
    plain = [cuts([64 * 256])[0], *cuts([64 * 256] + [64 * 257] * 8)[1:]]
    whole = [Cut(cut.index, (*cut.tensors, shape), (), "", "") if cut.index % 2 else cut for cut in plain]
    assert [cut.index for cut in promising(whole)] == [0, 1, 3, 5, 7, 8]


def test_cuts_that_carry_more_than_an_earlier_one_behind_the_input_are_left_out() -> None:
    assert [cut.index for cut in promising(cuts([1024, 8192, 2048, 2048, 4096, 1024, 512]))] == [0, 1, 2, 3, 5]
    assert [cut.index for cut in promising(cuts([1024] + [4096] * 19 + [2048] * 3))] == [
        0, 1, 7, 13, 19, 20, 22,
    ], "one in each quarter of those that carry as many"  # fmt: skip
    many = promising(cuts([1024, *range(64 * 99, 64 * 40, -64)]))
    assert len(many) == MAX_CUTS
