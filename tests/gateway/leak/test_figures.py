"""How well pictures are rebuilt at the cuts of models that keep all, some or nothing of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from skimage import data
from tests.models import CORPUS, conv, conv_weights, model, node, save, value, weight

from splitbus_gateway.graph import ModelGraph, cut_at, load_graph, useful_cuts
from splitbus_gateway.leak import Rebuilt, rebuild_pictures
from splitbus_gateway.leak.figures import telling
from splitbus_gateway.leak.grids import as_grid, find_picture
from splitbus_gateway.registry import Registry
from splitbus_gateway.samples import Feed, synthetic_samples
from splitbus_runtime.engine import Array

SIDE = 32
DATA: Any = data  # what scikit-image exports has no types


def pictures(count: int) -> list[Array]:
    """Pieces of photographs, channels first, 0 to 1."""
    rng = np.random.default_rng(0)
    photographs = [DATA.astronaut(), DATA.coffee(), DATA.chelsea(), DATA.rocket()]
    found = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        y, x = rng.integers(0, np.array(photograph.shape[:2]) - 3 * SIDE)
        piece = photograph[y : y + 3 * SIDE : 3, x : x + 3 * SIDE : 3]
        found.append(np.ascontiguousarray(piece.transpose(2, 0, 1)[None], np.float32) / 255)
    return found


def network(*, last: str = "y") -> ModelProto:
    """Convolutions, ever smaller, then a mean over the whole picture."""
    nodes = [
        conv("x", "a"),
        node("Relu", ["a"], ["ar"]),
        conv("ar", "b", strides=[2, 2]),
        node("Relu", ["b"], ["br"]),
        conv("br", "c", strides=[2, 2]),
        node("Relu", ["c"], ["cr"]),
        conv("cr", "d", strides=[2, 2]),
        node("GlobalAveragePool", ["d"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "g.w", "g.b"], [last]),
    ]
    weights = [*conv_weights("a", 16, 3), *conv_weights("b", 16, 16), *conv_weights("c", 12, 16)]
    weights += [*conv_weights("d", 8, 12), weight("g.w", 8, 10), weight("g.b", 10)]
    return model(nodes, [value("x", [1, 3, SIDE, SIDE])], [value(last, [1, 10])], weights)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> ModelGraph:
    return load_graph(save(network(), tmp_path_factory.mktemp("rebuilt")))


def figures(graph: ModelGraph, feeds: Sequence[Feed]) -> Rebuilt:
    cuts = (cut_at(graph, 0), *useful_cuts(graph, ratio=8.0).cuts)
    return rebuild_pictures(graph, cuts, feeds)


@pytest.fixture(scope="module")
def found(graph: ModelGraph) -> Rebuilt:
    return figures(graph, [{"x": picture} for picture in pictures(64)])


def test_the_further_the_less_is_rebuilt(found: Rebuilt) -> None:
    assert (found.fitted, found.reported, found.why_not) == (32, 16, "")
    assert found.nothing is not None
    alike = [shown.likeness.ssim for shown in found.cuts]
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > 0.75, "a convolution at full size loses little"
    assert alike[-1] < found.nothing.ssim + 0.05, "eight means say little of a picture"
    assert min(alike) >= found.nothing.ssim
    assert alike[0] > 2 * found.nothing.ssim
    assert found.cuts[0].likeness.psnr_db > found.nothing.psnr_db + 6
    assert all(shown.cut for shown in found.cuts), "the input is the picture: it needs no figure"


def test_the_same_pictures_give_the_same_figures(graph: ModelGraph, found: Rebuilt) -> None:
    assert figures(graph, [{"x": picture} for picture in pictures(64)]) == found


def test_the_reported_half_is_not_fitted_on(graph: ModelGraph) -> None:
    """Noise cannot be foretold: fitted on the same pictures, a mean over the picture would seem to tell them apart."""
    noise = np.random.default_rng(1).uniform(size=(64, 1, 3, SIDE, SIDE)).astype(np.float32)
    found = figures(graph, [{"x": picture} for picture in noise])
    assert found.nothing is not None
    assert found.cuts[-1].likeness.ssim < found.nothing.ssim + 0.02


def test_between_measured_cuts_a_cut_shows_what_the_one_before_does(graph: ModelGraph) -> None:
    cuts = (cut_at(graph, 0), *useful_cuts(graph, ratio=8.0).cuts)
    chosen = [cuts[2], cuts[4]]
    found = rebuild_pictures(graph, cuts, [{"x": picture} for picture in pictures(32)], chosen=chosen)
    shown = {one.cut: one.measured_at for one in found.cuts}
    assert set(shown) == {cut.index for cut in cuts[2:]}
    assert shown[cuts[3].index] == shown[cuts[2].index]
    assert shown[cuts[-1].index] == cuts[4].index


def test_few_pictures_or_none_say_why(graph: ModelGraph, tmp_path: Path) -> None:
    few = figures(graph, [{"x": picture} for picture in pictures(15)])
    assert few.why_not == "15 pictures are too few, 16 are needed"
    assert not few.cuts
    other = load_graph(save(CORPUS["transformer"](), tmp_path))
    feeds = synthetic_samples(other.inputs, 16)
    assert figures(other, feeds).why_not == "no input of the model is a picture"


@pytest.mark.parametrize("name", [name for name in CORPUS if name != "transformer"])
def test_any_model_has_figures_or_says_why(name: str, tmp_path: Path) -> None:
    graph = load_graph(save(CORPUS[name](), tmp_path))
    found = figures(graph, synthetic_samples(graph.inputs, 16))
    assert bool(found.why_not) == (find_picture(graph.inputs) is None)
    assert all(0 <= shown.likeness.ssim <= 1 for shown in found.cuts)


def test_tokens_channels_last_and_what_has_no_place_come_onto_one_grid() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:8, 0:16] / 16
    smooth = np.stack([np.sin(6 * (rows + index * columns)) for index in range(4)])
    samples = [(smooth * rng.uniform(0.5, 1)).astype(np.float32)[None] for _ in range(8)]
    tokens = [np.concatenate([np.zeros((1, 1, 4)), a.reshape(1, 4, -1).transpose(0, 2, 1)], 1) for a in samples]
    expected = np.concatenate(samples).transpose(0, 2, 3, 1)
    for kind in (samples, tokens, [a.transpose(0, 2, 3, 1) for a in samples]):
        np.testing.assert_allclose(as_grid({"t": kind}, (64, 128)), expected, rtol=1e-6)
    both = as_grid({"t": samples, "f": [a.mean(axis=(2, 3)) for a in samples]}, (64, 128))
    assert both.shape == (8, 8, 16, 8)
    np.testing.assert_allclose(both[3, 5, 7, 4:], samples[3].mean(axis=(0, 2, 3)), rtol=1e-5)


def test_model_add_calibrate_writes_them_down(tmp_path: Path) -> None:
    made = Registry(tmp_path / "state", max_input_ratio=4.0)
    path = save(network(), tmp_path)
    made.add("plain", path, [pictures(1)[0]] * 4)
    assert made.get("plain").rebuilt is None
    assert made.get("plain").facts().rebuilt is None
    made.add("plain", path, calibrate=pictures(32))
    record = made.get("plain")
    assert record.rebuilt is not None
    assert record.rebuilt.fitted == 16
    alike = record.facts().rebuilt
    assert alike is not None
    assert np.isnan(alike[0]), "the input has none"
    assert alike[-1] < alike[1]
    old = record.model_copy(update={"rebuilt": None})
    (tmp_path / "state" / "models" / "plain.json").write_text(old.model_dump_json(indent=1, exclude_none=True))
    assert made.get("plain").rebuilt is None
    made.add("plain", path, calibrate=pictures(32))
    assert made.get("plain").rebuilt == record.rebuilt, "a record of an earlier version is completed"


def test_of_many_cuts_those_that_carry_less_are_measured_first(graph: ModelGraph) -> None:
    cuts = (cut_at(graph, 0), *useful_cuts(graph, ratio=8.0).cuts)
    sizes = {cut.index: cut.nbytes for cut in cuts}
    assert telling(cuts) == list(cuts[1:])
    few = [cut.index for cut in telling(cuts, 3)]
    assert len(few) == 3
    assert few[0] == cuts[1].index
    assert [sizes[index] for index in few] == sorted({sizes[index] for index in few}, reverse=True)
