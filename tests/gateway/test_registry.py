from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests import models

from splitbus_gateway.graph import load_graph
from splitbus_gateway.graph.images import ImageInput
from splitbus_gateway.graph.memory import memory_bytes
from splitbus_gateway.records import ImageRecord
from splitbus_gateway.registry import Registry
from splitbus_schemas.codecs import CODECS, TRANSFORM
from splitbus_schemas.errors import ConfigError, ModelError
from splitbus_schemas.ids import model_key, sha256
from splitbus_schemas.messages import ModelCard

PLAIN = [name for name, codec in CODECS.items() if not codec.pictures and codec.nodes != TRANSFORM]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "state", samples=2)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    return models.save(models.chain(), tmp_path)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_model_is_added_read_and_removed(registry: Registry, chain: Path) -> None:
    card = registry.add("person", chain)
    assert card.model == sha256(chain.read_bytes())
    assert (card.name, card.nodes, card.whole_because) == ("person", 9, None)
    assert [spec.shape for spec in card.inputs] == [[1, 3, 16, 16]]
    assert [spec.name for spec in card.outputs] == ["y"]
    assert card.cuts[0] == 0
    assert len(card.cuts) > 2
    assert ModelCard.from_json(card.to_json()) == card
    assert [record.card for record in registry.list()] == [card]
    record = registry.get("person")
    assert registry.find_by_hash(card.model) == record
    assert registry.find_by_hash(model_key(card.model)) == record
    assert (record.samples, record.sample_count) == ("synthetic", 2)
    assert len(record.sizes) == len(card.cuts) * len(PLAIN)
    registry.remove("person")
    assert registry.list() == ()
    assert registry.find_by_hash(card.model) is None
    assert files_below(registry.store.folder.parent / "files") == []


def test_weights_are_kept_once_and_served_from_the_models_own_file(registry: Registry, chain: Path) -> None:
    card = registry.add("person", chain)
    weights = registry.get("person").weights
    assert weights
    chain.unlink()  # the copy is what counts
    assert registry.store.total_bytes == 0
    for weight in weights:
        assert weight.file == card.files[0].sha256
        assert sha256(registry.store.read(weight.sha256)) == weight.sha256
        assert registry.store.weight(weight).shape == tuple(weight.shape)


def test_a_model_with_external_data_is_copied_with_it(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    card = registry.add("person", models.external(tmp_path / "in"))
    assert [file.name for file in card.files] == ["model.onnx", "model.data"]
    (tmp_path / "in" / "model.data").unlink()
    (tmp_path / "in" / "model.onnx").unlink()
    again = Registry(tmp_path / "state")
    assert again.graph(card.model).sha256 == card.model
    for weight in again.get("person").weights:
        assert sha256(again.store.read(weight.sha256)) == weight.sha256


def test_weights_that_do_not_lie_in_the_file_as_bytes_are_not_evicted(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "state", samples=1, store_limit_bytes=0)
    card = registry.add("person", models.save(models.float_fields(), tmp_path))
    weights = registry.get("person").weights
    assert all(weight.file is None for weight in weights)
    registry.store.put(b"something else, which makes the store evict")
    assert all(registry.store.has(weight.sha256) for weight in weights)
    assert card.model == registry.get("person").model


def test_the_same_model_and_samples_are_not_measured_again(registry: Registry, chain: Path) -> None:
    steps: list[tuple[str, int, int]] = []

    def add(samples: Sequence[NDArray[np.float32]] | None) -> int:
        steps.clear()
        registry.add("person", chain, samples, progress=lambda *step: steps.append(step))
        return len(steps)

    pictures = [np.ones((3, 16, 16), np.float32), np.zeros((3, 16, 16), np.float32)]
    assert add(None) > 0
    assert add(None) == 0
    assert add(pictures) > 0
    assert add(pictures) == 0
    assert registry.get("person").samples == "given"
    assert add(pictures[:1]) > 0
    assert registry.get("person").sample_count == 1


def test_samples_in_a_file_are_named(registry: Registry, chain: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((5, 3, 16, 16)))
    registry.add("person", chain, tmp_path / "s.npz")
    record = registry.get("person")
    assert (record.samples, record.sample_count) == (str(tmp_path / "s.npz"), 2)


def test_a_name_is_not_taken_from_another_model_unless_told(registry: Registry, chain: Path, tmp_path: Path) -> None:
    first = registry.add("person", chain)
    other = models.save(models.residual(), tmp_path, "other.onnx")
    with pytest.raises(ModelError, match=r"person belongs to another model, added from .*model\.onnx.*--replace"):
        registry.add("person", other)
    assert registry.get("person").model == first.model
    second = registry.add("person", other, replace=True)
    assert registry.get("person").model == second.model != first.model
    assert registry.find_by_hash(first.model) is None
    assert {path.parent.name for path in files_below(tmp_path / "state" / "files")} == {model_key(second.model)}


def test_one_model_may_have_two_names(registry: Registry, chain: Path) -> None:
    registry.add("person", chain)
    card = registry.add("face", chain)
    registry.remove("person")
    assert registry.graph(card.model).steps == 9


def test_another_processes_changes_are_seen(registry: Registry, chain: Path, tmp_path: Path) -> None:
    other = Registry(tmp_path / "state", samples=2)
    assert not other.changed()
    registry.add("person", chain)
    assert other.get("person").name == "person"  # reading sees it at once, and does not swallow the news
    assert other.changed()
    assert not other.changed()
    registry.remove("person")
    assert other.changed()
    assert other.list() == ()


@pytest.mark.parametrize("name", ["Person", "a b", "", "a/b", "x" * 65])
def test_a_name_that_cannot_stand_in_a_topic_is_refused(registry: Registry, chain: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="model name"):
        registry.add(name, chain)


def test_bad_files_are_one_clear_sentence_and_leave_nothing(registry: Registry, tmp_path: Path) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk, and no model")
    for path, says in ((junk, "is not an ONNX model"), (tmp_path / "gone.onnx", "cannot be read")):
        with pytest.raises(ModelError, match=says) as caught:
            registry.add("person", path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert registry.list() == ()
    assert files_below(tmp_path / "state") == []


def test_a_model_that_made_up_inputs_do_not_suit_asks_for_samples(registry: Registry, tmp_path: Path) -> None:
    nodes = [
        models.node("Gather", ["table", "x"], ["row"]),
        models.node("MatMul", ["row", "w"], ["a"]),
        models.node("Relu", ["a"], ["b"]),
        models.node("Reshape", ["b", "shape"], ["c"]),
        models.node("MatMul", ["c", "w"], ["y"]),
    ]
    weights = [models.weight("table", 1, 32), models.weight("w", 32, 32), models.constant("shape", [2, 32], "int64")]
    proto = models.model(
        nodes, [models.value("x", [2], models.INT64)], [models.value("y", [2, 32])], weights
    )  # the table has one row, and made-up indices are 0 and 1
    path = models.save(proto, tmp_path)
    with pytest.raises(ModelError, match=r"model\.onnx cannot be measured: .*give some with --samples"):
        registry.add("rows", path)
    assert files_below(tmp_path / "state" / "files") == []
    card = registry.add("rows", path, [np.zeros(2, np.int64)])
    assert card.nodes == 5


def test_no_more_models_than_set(tmp_path: Path, chain: Path) -> None:
    registry = Registry(tmp_path / "state", samples=1, max_models=1)
    registry.add("one", chain)
    registry.add("one", chain)
    with pytest.raises(ModelError, match="1 models are registered already: remove one, or raise max_models"):
        registry.add("two", chain)


def test_an_unknown_model_is_told_with_those_that_are_known(registry: Registry, chain: Path) -> None:
    registry.add("person", chain)
    for action in (registry.get, registry.remove):
        with pytest.raises(ModelError, match="no model 'cat' is registered; registered are person"):
            action("cat")
    with pytest.raises(ModelError, match="is not registered"):
        registry.graph("0" * 64)


def test_a_damaged_record_is_left_out_and_told(
    registry: Registry, chain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry.add("person", chain)
    registry.add("face", chain)
    (tmp_path / "state" / "models" / "person.json").write_text('{"format": 2, "card": 3}')
    assert [record.name for record in Registry(tmp_path / "state").list()] == ["face"]
    assert "person.json" in caplog.text


def test_a_copy_that_was_tampered_with_is_not_sliced(registry: Registry, chain: Path, tmp_path: Path) -> None:
    card = registry.add("person", chain)
    copy = tmp_path / "state" / "files" / model_key(card.model) / "model.onnx"
    data = bytearray(copy.read_bytes())
    data[(registry.get("person").weights[0].offset or 0) + 5] ^= 1
    copy.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.onnx was changed: remove model person and add it again"):
        Registry(tmp_path / "state").graph(card.model)


def test_a_model_without_a_useful_cut_is_served_whole_and_says_why(registry: Registry, tmp_path: Path) -> None:
    card = registry.add("whole", models.save(models.no_useful_cut(), tmp_path))
    assert card.cuts == [0]
    assert "carries more than its inputs" in (card.whole_because or "")


def test_symbolic_sizes_are_taken_from_the_samples_and_remembered(tmp_path: Path) -> None:
    nodes = [models.conv("x", "a", strides=[2, 2]), models.node("Relu", ["a"], ["r"]), models.conv("r", "y")]
    weights = [*models.conv_weights("a", 4, 3), *models.conv_weights("y", 4, 4)]
    free = models.model(
        nodes, [models.value("x", ["N", 3, "H", "W"])], [models.value("y", ["N", 4, "h", "w"])], weights
    )
    registry = Registry(tmp_path / "state", samples=2)
    card = registry.add("free", models.save(free, tmp_path), [np.ones((4, 3, 32, 24), np.float32)])
    assert card.inputs[0].shape == [None, 3, None, None]
    record = registry.get("free")
    assert (record.shapes, record.sample_count) == ({"x": [1, 3, 32, 24]}, 4)
    assert next(cut for cut in record.cuts if cut.index).bytes == 4 * 16 * 12 * 4
    assert Registry(tmp_path / "state").graph(card.model).inputs[0].sizes == (1, 3, 32, 24)


@pytest.mark.parametrize("name", sorted(models.CORPUS))
def test_every_model_of_the_corpus_can_be_registered(registry: Registry, tmp_path: Path, name: str) -> None:
    card = registry.add("model", models.save(models.CORPUS[name](), tmp_path))
    facts = registry.get("model").facts()
    assert facts.codings.cuts == (*card.cuts, card.nodes)
    shape = (len(card.cuts), len(CODECS))
    assert facts.codings.coded_bytes.shape == facts.codings.lossless.shape == shape
    finite = np.isfinite(facts.codings.coded_bytes)
    assert {codec for codec, column in zip(CODECS, finite.T, strict=True) if column.all()} == set(PLAIN)
    assert finite.sum() == len(card.cuts) * len(PLAIN)  # no picture crosses anywhere
    assert (card.whole_because is None) == (len(card.cuts) > 1)


def test_the_planner_is_told_of_the_codecs_it_may_use(registry: Registry, chain: Path) -> None:
    registry.add("person", chain)
    record = registry.get("person")
    facts = record.facts(("q8", "raw"))
    assert facts.codings.codecs == ("q8", "raw")
    assert facts.codings.lossless[0].tolist() == [False, True]
    sizes = {(size.cut, size.codec): size.p50_bytes for size in record.sizes}
    for row, cut in enumerate(record.card.cuts):
        assert facts.codings.coded_bytes[row].tolist() == [sizes[cut, "q8"], sizes[cut, "raw"]]
    assert set(facts.tensors) == set(record.card.cuts)


def _add(state: Path, path: Path, name: str) -> None:
    Registry(state, samples=1).add(name, path)


def test_what_is_promised_is_what_the_samples_prove(registry: Registry, chain: Path) -> None:
    registry.add("person", chain, [np.random.default_rng(0).normal(size=(8, 1, 3, 16, 16)).astype(np.float32)])
    record = registry.get("person")
    shown, proven = record.facts().codings, record.facts(proven=True).codings
    q8, zstd = shown.codecs.index("q8"), shown.codecs.index("zstd")
    assert shown.agreement[0, q8] == 1.0
    assert proven.agreement[0, q8] == pytest.approx(0.05 ** (1 / record.sample_count))
    assert (proven.agreement[:, zstd] == 1.0).all()
    assert (np.isnan(proven.agreement) == np.isnan(shown.agreement)).all()


def test_two_processes_may_add_at_once(registry: Registry, tmp_path: Path, chain: Path) -> None:
    other = models.save(models.residual(), tmp_path, "other.onnx")
    context = multiprocessing.get_context("spawn")
    jobs = [(chain, "one"), (other, "two"), (chain, "three")]
    processes = [context.Process(target=_add, args=(tmp_path / "state", *job)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [record.name for record in registry.list()] == ["one", "three", "two"]
    for record in registry.list():
        assert registry.graph(record.model).sha256 == record.model


def test_a_state_folder_that_takes_nothing_is_named(registry: Registry, tmp_path: Path) -> None:
    """As on a full disk: the weights of this model cannot be written beside it."""
    path = models.save(models.float_fields(), tmp_path)
    (tmp_path / "state" / "models").rmdir()
    with pytest.raises(ModelError, match="state does not take model person: No such file or directory"):
        registry.add("person", path)
    assert files_below(tmp_path / "state" / "files") == []


# Models that take frames ----------------------------------------------------------------------------------------------

IMAGE = ImageInput("x", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_an_image_input_gives_a_model_of_its_own(registry: Registry, chain: Path) -> None:
    card = registry.add("person", chain, image=IMAGE)
    assert [(spec.name, spec.dtype, spec.shape) for spec in card.inputs] == [("x", "uint8", [1, 16, 16, 3])]
    assert card.made_from == sha256(chain.read_bytes())
    assert card.files[0].sha256 == card.model != card.made_from
    record = registry.get("person")
    assert record.source == str(chain)
    assert record.image == ImageRecord(
        input="x", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], scale="1/255", color="rgb"
    )
    assert card.cuts[0] == 0
    assert not set(range(1, 5)) & set(card.cuts)  # half prepared, a picture is no better than as it came
    column = record.facts().codings.coded_bytes[:, list(CODECS).index("jpeg85")]
    assert np.isfinite(column).tolist() == [True] + [False] * (len(card.cuts) - 1)
    again = registry.add("person", chain, image=IMAGE)
    assert again == card
    plain = registry.add("floats", chain)
    assert (plain.made_from, plain.files[0].sha256) == (None, card.made_from)
    with pytest.raises(ModelError, match="person belongs to another model"):
        registry.add("person", chain)


def test_a_frames_cuts_are_those_of_the_prepared_picture(registry: Registry, chain: Path) -> None:
    """A camera's bytes are few, but so are those of an activation that a codec has made bytes of."""
    prepared = 4  # Transpose, Cast, Sub, Mul
    frames, floats = registry.add("frames", chain, image=IMAGE), registry.add("floats", chain)
    assert frames.nodes == floats.nodes + prepared
    assert frames.cuts[1:] == [cut + prepared for cut in floats.cuts[1:]]


def test_a_picture_that_cannot_be_is_refused_and_leaves_nothing(registry: Registry, chain: Path) -> None:
    with pytest.raises(ModelError, match=rf"{chain} has no input 'image', its inputs are x"):
        registry.add("person", chain, image=ImageInput("image"))
    assert files_below(registry.store.folder.parent) == []


def test_a_registered_model_is_written_as_a_file(registry: Registry, chain: Path, tmp_path: Path) -> None:
    card = registry.add("person", chain, image=IMAGE)
    target = tmp_path / "new" / "frames.onnx"
    assert registry.export("person", target) == card
    assert sha256(target.read_bytes()) == card.model
    with pytest.raises(ModelError, match=r"frames\.onnx is there already: give another place, or --replace"):
        registry.export("person", target)
    registry.export("person", target, replace=True)
    with pytest.raises(ModelError, match="no model 'cat' is registered"):
        registry.export("cat", target)
    with pytest.raises(ModelError, match="cannot be written"):
        registry.export("person", chain / "below" / "a" / "file.onnx")


def test_external_data_is_written_beside_it(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    card = registry.add("person", models.external(tmp_path / "in"), image=IMAGE)
    assert [file.name for file in card.files] == ["model.onnx", "model.data"]
    registry.export("person", tmp_path / "out" / "frames.onnx")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["frames.onnx", "model.data"]
    assert load_graph(tmp_path / "out" / "frames.onnx").inputs[0].dtype == "uint8"
    with pytest.raises(ModelError, match=r"model\.data is there already"):
        registry.export("person", tmp_path / "in" / "frames.onnx")


def test_samples_may_be_pictures(registry: Registry, chain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(np.full((32, 40, 3), 50 * number, np.uint8)).save(folder / f"{number}.jpg")
    registry.add("person", chain, folder, image=IMAGE)
    record = registry.get("person")
    assert (record.samples, record.sample_count) == (str(folder), 2)
    with pytest.raises(ModelError, match="declare its image with --image-input"):
        registry.add("floats", chain, folder)


# What records tell ----------------------------------------------------------------------------------------------------


def test_the_planner_is_told_what_memory_each_cut_takes(registry: Registry, chain: Path) -> None:
    card = registry.add("person", chain)
    facts = registry.get("person").facts()
    expected = memory_bytes(registry.graph(card.model), [*card.cuts, card.nodes])
    assert facts.memory_mb is not None
    assert (facts.memory_mb * 2**20).tolist() == expected
    assert facts.memory_mb[0] == 0


def test_a_record_of_another_version_is_named_with_its_remedy(
    registry: Registry, chain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = registry.add("person", chain)
    path = tmp_path / "state" / "models" / "person.json"
    record = json.loads(path.read_text())
    for field in ("steps", "memory_bytes", "cuts", "sizes"):  # of which an older format knew nothing, or other things
        del record[field]
    path.write_text(json.dumps({**record, "format": 1}))
    later = Registry(tmp_path / "state", samples=2)
    assert later.list() == ()
    remedy = (
        r"model person was added by another version of splitbus \(its record has format 1, this program reads 2\): "
        rf"add it again with splitbus model add person {chain}"
    )
    assert re.search(remedy, caplog.text)
    for action in (later.get, later.graph):
        with pytest.raises(ModelError, match=remedy if action == later.get else "is not registered"):
            action("person")
    assert [found.card.name for found in later.outdated()] == ["person"]
    assert later.add("person", chain) == card
    assert later.outdated() == ()
    path.write_text(json.dumps({**record, "format": 1}))
    last = Registry(tmp_path / "state")
    last.remove("person")
    assert (last.outdated(), files_below(tmp_path / "state" / "files")) == ((), [])
