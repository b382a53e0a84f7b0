"""The six architectures of the benchmarks open, cut and give the answers of the whole at every cut tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from splitbus_gateway.graph import load_graph, useful_cuts, verify
from splitbus_runtime.engine import open_session

NAMES = ["googlenet_128", "mobilenet_v2_192", "resnet18_160", "squeezenet_160", "unet_160", "vit_160"]
WIDE = "enet_240"


@pytest.fixture(scope="module")
def architectures(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("architectures")


def test_there_are_six(architectures: ModuleType) -> None:
    assert sorted(architectures.ARCHITECTURES) == NAMES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@pytest.mark.parametrize("name", NAMES)
def test_cuts_and_verifies(architectures: ModuleType, folder: Path, name: str) -> None:
    graph = load_graph(architectures.build(name, folder))
    cuts = [cut.index for cut in useful_cuts(graph).cuts]
    assert len(cuts) >= 6
    tried = cuts[:: max(1, len(cuts) // 3)]
    assert [check.index for check in verify(graph, cuts=tried, threads=1) if check.ok] == tried


@pytest.mark.parametrize("name", NAMES)
def test_answers_depend_on_the_picture(architectures: ModuleType, folder: Path, name: str) -> None:
    """Random weights could also have saturated, or died."""
    session = open_session(architectures.build(name, folder), threads=1)
    rng = np.random.default_rng(0)
    shape = [int(side or 1) for side in session.inputs[0].shape]
    pictures = [rng.standard_normal(shape).astype(np.float32) for _ in range(2)]
    first, second = (session.run({"image": picture})[0] for picture in pictures)
    assert np.isfinite(first).all()
    assert first.std() > 0.01
    assert not np.allclose(first, second, rtol=1e-3)


def test_the_wide_one_has_no_narrow_place(architectures: ModuleType, folder: Path) -> None:
    """What crosses a cut takes more bytes than the picture, until only the scores of the classes are left."""
    graph = load_graph(architectures.build(WIDE, folder))
    session = open_session(graph.path, threads=1)
    (info,) = session.inputs
    picture = int(np.prod([int(side or 1) for side in info.shape]))
    inner = [cut for cut in useful_cuts(graph, ratio=4.0).cuts if 0 < cut.index < graph.steps - 5]
    assert len(inner) > 20
    assert min(cut.nbytes for cut in inner) >= 2 * picture


def test_the_wide_one_tells_pictures_apart(architectures: ModuleType, folder: Path) -> None:
    session = open_session(architectures.build(WIDE, folder), threads=1)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (1, 3, 240, 240), np.uint8) for _ in range(2)]
    first, second = (session.run({"image": picture})[0] for picture in pictures)
    assert (first.dtype, first.shape) == (np.uint8, (1, 30, 30))
    assert len(np.unique(first)) > 3
    assert (first != second).mean() > 0.05


def test_weights_are_the_same_every_time(architectures: ModuleType) -> None:
    assert architectures.squeezenet().SerializeToString() == architectures.squeezenet().SerializeToString()


def test_a_model_that_is_there_is_not_built_again(architectures: ModuleType, tmp_path: Path) -> None:
    path = architectures.build("unet_160", tmp_path)
    before = path.stat().st_mtime_ns
    assert architectures.build("unet_160", tmp_path).stat().st_mtime_ns == before
