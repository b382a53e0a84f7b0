"""The built model gives the logits of PyTorch's own loader and float64 kernels, batch norm not folded."""

import hashlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from splitbus_demo import efficientnet
from splitbus_schemas.errors import ConfigError, ModelError

Array = NDArray[np.float32]
LOGITS = Path(__file__).parent / "efficientnet_lite0_logits.npz"
"""From PyTorch 2.13: `torch.load`, convolutions and batch norms apart, TensorFlow's padding by `F.pad`, float64."""


def pattern() -> Array:
    n = np.arange(3 * 224 * 224, dtype=np.int64)
    pixels = (n * n * 31 + n * 7919) % 65521 % 256
    return ((pixels - 127) / 128).astype(np.float32).reshape(1, 3, 224, 224)


def chelsea() -> Array:
    with resources.files("skimage").joinpath("data", "chelsea.png").open("rb") as file:
        pixels = np.asarray(Image.open(file))[40:264, 150:374].astype(np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return efficientnet.build(tmp_path_factory.mktemp("model") / "efficientnet_lite0.onnx")


@pytest.mark.parametrize(("name", "image"), [("pattern", pattern), ("chelsea", chelsea)])
def test_logits_are_the_references(model: Path, name: str, image: Callable[[], Array]) -> None:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    logits = session.run([efficientnet.OUTPUT], {efficientnet.INPUT: image()})[0]
    with np.load(LOGITS) as stored:
        expected = stored[name]
    assert np.ptp(expected) > 5  # the reference itself is no constant
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_the_bytes_are_always_the_same(model: Path) -> None:
    assert hashlib.sha256(model.read_bytes()).hexdigest() == efficientnet.MODEL_SHA256


def test_shapes_are_fixed(model: Path) -> None:
    graph = onnx.load(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"input": [1, 3, 224, 224], "logits": [1, 1000]}
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_a_good_file_is_kept_and_a_damaged_one_replaced(model: Path) -> None:
    before = model.stat().st_mtime_ns
    assert efficientnet.build(model).stat().st_mtime_ns == before
    model.write_bytes(b"half a model")
    lines: list[str] = []
    efficientnet.build(model, lines.append)
    assert hashlib.sha256(model.read_bytes()).hexdigest() == efficientnet.MODEL_SHA256
    assert lines[-1] == "efficientnet_lite0.onnx written, 18.5 MB"
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_wrong_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"efficientnet-lite0-57934424\.pth has SHA-256 5793"):
        efficientnet.build(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "_PACKAGE", "a_package_that_nobody_installed")
    with pytest.raises(ConfigError, match=r"pip install 'splitbus\[demo\]'"):
        efficientnet.build(tmp_path / "model.onnx")


@given(size=st.integers(1, 300), kernel=st.integers(1, 7), stride=st.integers(1, 4))
def test_same_pads_give_the_size_that_same_means(size: int, kernel: int, stride: int) -> None:
    before, after = efficientnet.same_pads(size, kernel, stride)
    assert 0 <= after - before <= 1
    if before + after or kernel >= stride:
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
