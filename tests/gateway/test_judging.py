"""Accuracy and an owner's own measure beside agreement, from `model add` to the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto
from tests.gateway.test_transformed import network, pictures
from tests.models import constant, conv, conv_weights, model, node, save, value

from splitbus_gateway.judging import Judge
from splitbus_gateway.measures import Measure, load_measure
from splitbus_gateway.registry import Registry
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ConfigError, ModelError

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "detector_measure.py"
COUNT = 40


def answers(path: Path) -> list[int]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [int(session.run(["y"], {"x": x})[0].argmax()) for x in pictures(COUNT)]


def test_accuracy_stands_beside_agreement_and_bytes_are_mean_as_well(tmp_path: Path) -> None:
    """A quarter of the labels are wrong on purpose: whole frames are right on the others, and so are lossless ones."""
    path, registry = save(network(), tmp_path), Registry(tmp_path / "state", max_input_ratio=4.0, samples=8)
    right = answers(path)
    labels = np.array([(best + (place % 8 == 1)) % 10 for place, best in enumerate(right)])
    np.save(tmp_path / "labels.npy", labels)
    registry.add("net", path, calibrate=pictures(COUNT), labels=tmp_path / "labels.npy")
    record = registry.get("net")
    held_out = list(zip(right, labels, strict=True))[1::2][: record.sample_count]
    assert record.accuracy is not None
    assert record.accuracy == pytest.approx(np.mean([best == label for best, label in held_out]), abs=1e-4)
    assert 0.7 < record.accuracy < 0.8
    for size in record.sizes:
        assert size.accuracy is not None
        assert size.mean_bytes is not None
        assert size.p90_bytes >= size.p50_bytes
        assert abs(size.mean_bytes - size.p50_bytes) <= size.p90_bytes
        if CODECS[size.codec].lossless:
            assert size.accuracy == record.accuracy
        assert abs(size.accuracy - record.accuracy) <= 1 - size.agreement + 0.25
    before = record.added
    registry.add("net", path, calibrate=pictures(COUNT), labels=tmp_path / "labels.npy")
    assert registry.get("net").added == before, "the same labels are not measured again"
    registry.add("net", path, calibrate=pictures(COUNT))
    assert registry.get("net").accuracy is None


def detector() -> ModelProto:
    """Scores and boxes for 36 places, as single-shot detectors give them."""
    nodes = [
        conv("x", "a"),
        node("Relu", ["a"], ["ar"]),
        conv("ar", "b", strides=[2, 2]),
        node("Relu", ["b"], ["br"]),
        conv("br", "s", strides=[2, 2]),
        node("Transpose", ["s"], ["st"], perm=[0, 2, 3, 1]),
        node("Reshape", ["st", "shape"], ["r"]),
        node("Split", ["r", "parts"], ["logits", "boxes"], axis=2),
        node("Softmax", ["logits"], ["scores"], axis=2),
    ]
    weights = [*conv_weights("a", 8, 3), *conv_weights("b", 12, 8), *conv_weights("s", 6, 12)]
    weights += [constant("shape", [1, 36, 6], "int64"), constant("parts", [2, 4], "int64")]
    outputs = [value("scores", [1, 36, 2]), value("boxes", [1, 36, 4])]
    return model(nodes, [value("x", [1, 3, 24, 24])], outputs, weights)


def test_a_detector_is_judged_by_its_owners_own_function(tmp_path: Path) -> None:
    path, registry = save(detector(), tmp_path), Registry(tmp_path / "state", max_input_ratio=4.0, samples=8)
    registry.add("net", path, calibrate=pictures(COUNT), measure=load_measure(f"{EXAMPLE}:same_boxes"))
    owners = {(size.cut, size.codec): size for size in registry.get("net").sizes}
    assert registry.get("net").measure == f"{EXAMPLE}:same_boxes"
    registry.add("net", path, calibrate=pictures(COUNT))
    plain = {(size.cut, size.codec): size for size in registry.get("net").sizes}
    assert registry.get("net").measure is None
    assert owners.keys() == plain.keys()
    assert any(owners[key].agreement != plain[key].agreement for key in owners), "it decides, not the relative error"
    assert all(owners[key].error == plain[key].error for key in owners)


def boxes(*corners: tuple[float, float, float, float], score: float = 0.9) -> dict[str, np.ndarray]:
    rows = np.array(corners, np.float32).reshape(1, -1, 4)
    return {"boxes": rows, "scores": np.full((1, rows.shape[1], 2), score, np.float32)}


def test_the_example_compares_boxes() -> None:
    same = load_measure(f"{EXAMPLE}:same_boxes").holds
    one, near, far = boxes((0, 0, 10, 10)), boxes((1, 1, 10, 11)), boxes((20, 0, 30, 10))
    assert same(one, near)
    assert not same(one, far)
    assert not same(one, boxes((0, 0, 10, 10), (20, 0, 30, 10)))
    assert same(boxes(score=0.1), boxes((3, 3, 9, 9), score=0.5)), "nothing confident in either"
    assert not same(boxes(), one)


def test_boxes_of_no_area_are_none_and_a_little_less_sure_is_the_same() -> None:
    same = load_measure(f"{EXAMPLE}:same_boxes").holds
    inverted, one = boxes((9, 9, 1, 1)), boxes((0, 0, 10, 10), score=0.71)
    assert same(inverted, boxes()), "raw offsets of a detector often look like that"
    assert same(one, boxes((0, 0, 10, 10), score=0.6)), "0.71 and 0.6 are one thing"
    assert not same(one, boxes((0, 0, 10, 10), score=0.4))


@given(st.integers(0, 2**32 - 1))
def test_every_measure_of_the_example_finds_an_answer_the_same_as_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = {"boxes": rng.normal(0, 3, (1, 4420, 4)).astype(np.float32)}
    raw["scores"] = rng.random((1, 4420, 2), np.float32) ** 50
    maps = np.concatenate([rng.random((1, 1, 6, 5)), rng.normal(0, 2, (1, 4, 6, 5)), rng.random((1, 7, 6, 5))], axis=1)
    for name, answer in (("same_boxes", raw), ("same_faces", raw), ("same_objects", {"758": maps.astype(np.float32)})):
        assert load_measure(f"{EXAMPLE}:{name}").holds(answer, answer)


def test_faces_are_decoded_from_their_grid() -> None:
    """A face of 64 x 64 pixels in the middle of the picture, by the place of the second map that stands there."""
    same = load_measure(f"{EXAMPLE}:same_faces").holds
    index = 3600 + 600 + (3 * 10 + 5) * 2  # its centre is at 176 x 112
    offsets, scores = np.zeros((1, 4420, 4), np.float32), np.zeros((1, 4420, 2), np.float32)
    scores[0, index, 1] = 0.9
    offsets[0, index, 0] = -10 * 16 / 64
    one = {"boxes": offsets, "scores": scores}
    neighbour, beyond = np.zeros_like(scores), np.zeros_like(scores)
    neighbour[0, index - 2, 1] = beyond[0, index - 6, 1] = 0.9  # 32 and 96 pixels to the left of where it stands
    assert same(one, {"boxes": np.roll(offsets, -2, axis=1) * -1, "scores": neighbour}), "at 144 + 16 pixels"
    assert not same(one, {"boxes": np.zeros_like(offsets), "scores": beyond})


def test_objects_have_a_class() -> None:
    same = load_measure(f"{EXAMPLE}:same_objects").holds
    maps = np.zeros((1, 8, 4, 4), np.float32)
    maps[0, [0, 6], 1, 2] = 0.9
    other = maps.copy()
    other[0, [5, 6], 1, 2] = 0.9, 0.0
    moved = np.roll(maps, 2, axis=3)
    moved[0, 3:5], far = -3.0, maps.copy()  # boxes small enough not to meet
    far[0, 3:5] = -3.0
    assert same({"758": maps}, {"758": maps * np.float32(0.95)})
    assert not same({"758": maps}, {"758": other}), "another class"
    assert not same({"758": far}, {"758": moved}), "another place"


def test_a_measure_by_which_nothing_is_the_same_ends_the_adding(tmp_path: Path) -> None:
    path, registry = save(network(), tmp_path), Registry(tmp_path / "state", max_input_ratio=4.0, samples=8)
    never = Measure("never", lambda _a, _b: False)
    with pytest.raises(ModelError, match=r"by the measure never .* is not the same as itself on 16 of 16"):
        registry.add("net", path, calibrate=pictures(COUNT), measure=never)
    assert registry.list() == ()


def raise_it(*_: object) -> bool:
    raise ZeroDivisionError("by nothing")


def test_a_measure_that_fails_is_named() -> None:
    with pytest.raises(ModelError, match="the measure mine failed: ZeroDivisionError: by nothing"):
        Measure("mine", raise_it).holds({}, {})
    with pytest.raises(ModelError, match="must return True or False"):
        Measure("mine", lambda _a, _b: 0.5).holds({}, {})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("same", "give module:function"),
        ("module:", "give module:function"),
        ("no_such_module:same", "cannot be imported: ModuleNotFoundError"),
        ("nowhere.py:same", "there is no nowhere.py"),
        (f"{EXAMPLE}:other", "has no function other"),
        ("json:dumps", ""),
    ],
)
def test_a_measure_is_found_or_its_name_refused(name: str, why: str) -> None:
    if not why:
        assert load_measure(name).name == name
        return
    with pytest.raises(ConfigError, match=why):
        load_measure(name)


def test_labels_need_class_scores_and_known_classes(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.zeros(COUNT, int))
    with pytest.raises(ModelError, match="labels need class scores, the model gives scores"):
        Registry(tmp_path / "a").add(
            "net", save(detector(), tmp_path), calibrate=pictures(COUNT), labels=tmp_path / "labels.npy"
        )
    scores = [{"y": np.eye(3, dtype=np.float32)[None, place]} for place in (0, 1, 2)]
    assert Judge((0, 1, 1)).accuracy(scores) == pytest.approx(2 / 3)
    with pytest.raises(ModelError, match="a label is 3, the model's classes are 0 to 2"):
        Judge((0, 1, 3)).accuracy(scores)
    with pytest.raises(ModelError, match="labels belong to inputs that are given"):
        Registry(tmp_path / "b").add("net", save(network(), tmp_path), labels=tmp_path / "labels.npy")
