"""Network architectures as ONNX files, built from code with seeded random weights; no two graphs are of one kind.

Residual blocks, inverted residuals, fire modules, parallel branches, attention over tokens, an encoder with skip
connections to its decoder; and one without a narrow place. Weights are drawn so that activations keep their scale;
nothing was trained.

    .venv/bin/python benchmarks/architectures.py DIR
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 17
"""The first with LayerNormalization; onnxruntime has taken it since 1.12."""
IR_VERSION: Final = 8
CLASSES: Final = 100
SEED: Final = 2024


class Net:
    """A graph under construction. Methods add a layer and return the name of its output."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: int = TensorProto.FLOAT) -> None:
        self._name, self._shape, self._dtype = name, shape, dtype
        self._rng = np.random.default_rng(SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._channels = {"image": shape[1]}

    def channels(self, x: str) -> int:
        """Of a feature map, or the width of tokens."""
        return self._channels[x]

    def op(self, kind: str, *inputs: str, channels: int | None = None, **attributes: Any) -> str:
        """A node; as many channels as its first input unless told."""
        output = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        self._channels[output] = self._channels.get(inputs[0], 0) if channels is None else channels
        return output

    def weight(self, values: NDArray[Any]) -> str:
        """A constant of the model."""
        name = f"w_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def random(self, *shape: int, fan_in: int, gain: float = 2.0) -> str:
        """Weights of a layer: normal, with the variance that keeps the scale of activations."""
        deviation = (gain / fan_in) ** 0.5
        return self.weight((self._rng.standard_normal(shape) * deviation).astype(np.float32))

    def conv(
        self,
        x: str,
        out: int,
        size: int | tuple[int, int] = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        act: str = "Relu",
    ) -> str:
        """Convolution with bias, then an activation ("" for none); sides are divided by the stride."""
        sides = [size, size] if isinstance(size, int) else list(size)
        fan_in = self.channels(x) // groups * sides[0] * sides[1]
        kernel = self.random(out, self.channels(x) // groups, *sides, fan_in=fan_in, gain=2.0 if act else 1.0)
        bias = self.weight((self._rng.standard_normal(out) * 0.05).astype(np.float32))
        pads = [side // 2 * dilation if side % 2 else 0 for side in sides] * 2
        y = self.op("Conv", x, kernel, bias, channels=out, strides=[stride] * 2, pads=pads, group=groups,
                    dilations=[dilation] * 2, kernel_shape=sides)  # fmt: skip
        return self.activation(y, act)

    def activation(self, x: str, act: str) -> str:
        """Relu, Relu6 or none."""
        if act == "Relu6":
            low, high = self.weight(np.array(0, np.float32)), self.weight(np.array(6, np.float32))
            return self.op("Clip", x, low, high)
        return self.op(act, x) if act else x

    def pool(self, x: str, size: int, stride: int) -> str:
        """The largest of each window."""
        return self.op("MaxPool", x, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4
                       if size % 2 else [0] * 4)  # fmt: skip

    def concat(self, *parts: str) -> str:
        """Feature maps side by side."""
        return self.op("Concat", *parts, channels=sum(map(self.channels, parts)), axis=1)

    def linear(self, x: str, out: int, *, gain: float = 1.0) -> str:
        """Tokens or a flat vector times a matrix, plus a bias."""
        matrix = self.random(self.channels(x), out, fan_in=self.channels(x), gain=gain)
        product = self.op("MatMul", x, matrix, channels=out)
        return self.op("Add", product, self.weight(np.zeros(out, np.float32)), channels=out)

    def classify(self, x: str, classes: int = CLASSES) -> str:
        """Mean over the picture, then one score for each class."""
        pooled = self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)
        return self.linear(pooled, classes)

    def build(self, output: str, shape: tuple[int, ...], dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
        """The checked model, from `image` to `output`, which is called `scores`."""
        self._nodes.append(helper.make_node("Identity", [output], ["scores"], name="scores"))
        image = helper.make_tensor_value_info("image", self._dtype, self._shape)
        scores = helper.make_tensor_value_info("scores", dtype, shape)
        graph = helper.make_graph(self._nodes, self._name, [image], [scores], self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "splitbus benchmarks"
        onnx.checker.check_model(model, full_check=True)
        return model


def resnet18() -> onnx.ModelProto:
    """ResNet-18 at 160 x 160: pairs of convolutions with a shortcut; every block can be cut, its inside hardly."""
    net = Net("resnet18_160", (1, 3, 160, 160))
    x = net.pool(net.conv("image", 64, 7, stride=2), 3, 2)
    for width, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            y = net.conv(net.conv(x, width, stride=stride), width, act="")
            same = stride == 1 and net.channels(x) == width
            x = net.op("Relu", net.op("Add", y, x if same else net.conv(x, width, 1, stride=stride, act="")))
    return net.build(net.classify(x), (1, CLASSES))


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2 at 192 x 192: narrow bottlenecks between wide insides, which is where cuts are cheap."""
    net = Net("mobilenet_v2_192", (1, 3, 192, 192))
    x = net.conv("image", 32, 3, stride=2, act="Relu6")
    for expand, width, times, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for turn in range(times):
            x = _inverted(net, x, width, expand, first if turn == 0 else 1)
    return net.build(net.classify(net.conv(x, 1280, 1, act="Relu6")), (1, CLASSES))


def _inverted(net: Net, x: str, width: int, expand: int, stride: int) -> str:
    inside = net.channels(x) * expand
    y = net.conv(x, inside, 1, act="Relu6") if expand > 1 else x
    y = net.conv(net.conv(y, inside, 3, stride=stride, groups=inside, act="Relu6"), width, 1, act="")
    return net.op("Add", x, y) if stride == 1 and net.channels(x) == width else y


def squeezenet() -> onnx.ModelProto:
    """SqueezeNet 1.1 at 160 x 160: fire modules, whose squeezed inside is smaller than what lies between them."""
    net = Net("squeezenet_160", (1, 3, 160, 160))
    x = net.pool(net.conv("image", 64, 3, stride=2), 3, 2)
    for squeeze, expand, pooled in (
        (16, 64, False), (16, 64, True), (32, 128, False), (32, 128, True),
        (48, 192, False), (48, 192, False), (64, 256, False), (64, 256, False),
    ):  # fmt: skip
        narrow = net.conv(x, squeeze, 1)
        x = net.concat(net.conv(narrow, expand, 1), net.conv(narrow, expand, 3))
        x = net.pool(x, 3, 2) if pooled else x
    return net.build(net.classify(net.conv(x, 256, 1)), (1, CLASSES))


def googlenet() -> onnx.ModelProto:
    """A small GoogLeNet at 128 x 128: four branches in each module, so that cuts inside have many tensors."""
    net = Net("googlenet_128", (1, 3, 128, 128))
    x = net.pool(net.conv("image", 48, 7, stride=2), 3, 2)
    x = net.pool(net.conv(net.conv(x, 48, 1), 128, 3), 3, 2)
    for one, three, five, pooled, shrink in (
        (48, 96, 24, 24, False), (96, 128, 64, 48, True), (128, 160, 48, 48, False),
        (112, 176, 48, 48, False), (160, 224, 80, 80, True), (224, 256, 96, 96, False),
    ):  # fmt: skip
        x = net.concat(
            net.conv(x, one, 1),
            net.conv(net.conv(x, three // 2, 1), three, 3),
            net.conv(net.conv(x, five // 2, 1), five, 5),
            net.conv(net.pool(x, 3, 1), pooled, 1),
        )
        x = net.pool(x, 3, 2) if shrink else x
    return net.build(net.classify(x), (1, CLASSES))


def vit() -> onnx.ModelProto:
    """A small vision transformer at 160 x 160: 100 tokens of 192 through six layers, as large as ever all the way."""
    net = Net("vit_160", (1, 3, 160, 160))
    width, heads, patches = 192, 3, 100
    kernel = net.random(width, 3, 16, 16, fan_in=3 * 256, gain=1.0)
    grid = net.op("Conv", "image", kernel, channels=width, strides=[16, 16], kernel_shape=[16, 16])
    flat = net.op("Reshape", grid, net.weight(np.array([1, width, patches], np.int64)))
    x = net.op("Transpose", flat, perm=[0, 2, 1])
    x = net.op("Add", x, net.random(1, patches, width, fan_in=50))
    for _ in range(6):
        x = net.op("Add", x, _attention(net, _normal(net, x), heads, patches))
        x = net.op("Add", x, net.linear(_gelu(net, net.linear(_normal(net, x), 4 * width, gain=2.0)), width))
    mean = net.op("ReduceMean", _normal(net, x), axes=[1], keepdims=0)
    return net.build(net.linear(mean, CLASSES), (1, CLASSES))


def _normal(net: Net, x: str) -> str:
    ones, zeros = np.ones(net.channels(x), np.float32), np.zeros(net.channels(x), np.float32)
    return net.op("LayerNormalization", x, net.weight(ones), net.weight(zeros), axis=-1)


def _attention(net: Net, x: str, heads: int, patches: int) -> str:
    width = net.channels(x)
    shape = net.weight(np.array([1, patches, heads, width // heads], np.int64))
    query, key, values = (
        net.op("Transpose", net.op("Reshape", net.linear(x, width), shape), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scale = net.weight(np.array((width // heads) ** -0.5, np.float32))
    weights = net.op("Softmax", net.op("Mul", net.op("MatMul", query, key), scale), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", weights, values), perm=[0, 2, 1, 3])
    joined = net.op("Reshape", mixed, net.weight(np.array([1, patches, width], np.int64)), channels=width)
    return net.linear(joined, width)


def _gelu(net: Net, x: str) -> str:
    root, one, half = (net.weight(np.array(value, np.float32)) for value in (2**-0.5, 1, 0.5))
    grown = net.op("Add", net.op("Erf", net.op("Mul", x, root)), one)
    return net.op("Mul", net.op("Mul", x, grown), half)


def unet() -> onnx.ModelProto:
    """A U-Net at 160 x 160 behind a stem: skips stay alive past the bottom, and the answer is a picture of its own."""
    net = Net("unet_160", (1, 3, 160, 160))
    x, skips = net.conv("image", 16, 5, stride=2), []
    for width in (24, 48):
        x = net.conv(net.conv(x, width, stride=2), width)
        skips.append(x)
    x = net.conv(net.conv(x, 96, stride=2), 96)
    for width, skip in zip((48, 24), reversed(skips), strict=True):
        x = net.conv(net.conv(net.concat(_grown(net, x, 2), skip), width), width)
    return net.build(net.op("Sigmoid", _grown(net, net.conv(x, 1, 1, act=""), 4)), (1, 1, 160, 160))


def _grown(net: Net, x: str, times: int) -> str:
    scales = net.weight(np.array([1, 1, times, times], np.float32))
    return net.op("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric",
                  nearest_mode="floor")  # fmt: skip


def enet() -> onnx.ModelProto:
    """ENet's encoder at 240 x 240, from pixels to a map of classes: no narrow place, for nothing shrinks below 1/8.

    Initial block, stages 1 to 3 as published (bottlenecks regular, dilated by 2 to 16, and asymmetric), a projection to
    12 classes as its encoder is trained with, and the best class of each place. ReLU for PReLU.
    """
    net, classes = Net("enet_240", (1, 3, 240, 240), TensorProto.UINT8), 12
    pixels = net.op("Cast", "image", to=TensorProto.FLOAT)
    shift, scale = (net.weight(np.array(value, np.float32)) for value in (127, 1 / 128))
    x = net.op("Mul", net.op("Sub", pixels, shift), scale)
    x = _enet_down(net, net.concat(net.conv(x, 13, stride=2), net.pool(x, 2, 2)), 64)
    for _ in range(4):
        x = _enet_regular(net, x, 3)
    x = _enet_down(net, x, 128)
    for _ in range(2):
        for size, dilation in ((3, 1), (3, 2), (5, 1), (3, 4), (3, 1), (3, 8), (5, 1), (3, 16)):
            x = _enet_regular(net, x, size, dilation)
    best = net.op("ArgMax", net.conv(x, classes, 1, act=""), axis=1, keepdims=0)
    return net.build(net.op("Cast", best, to=TensorProto.UINT8), (1, 30, 30), TensorProto.UINT8)


def _enet_regular(net: Net, x: str, size: int, dilation: int = 1) -> str:
    """Narrow, look around, widen, add; five by five is taken apart into two asymmetric ones."""
    inside = net.channels(x) // 4
    y = net.conv(x, inside, 1)
    for part in ((size, size),) if size == 3 else ((size, 1), (1, size)):
        y = net.conv(y, inside, part, dilation=dilation)
    return net.op("Relu", net.op("Add", x, net.conv(y, net.channels(x), 1, act="")))


def _enet_down(net: Net, x: str, out: int) -> str:
    """Halves the sides; the shortcut is pooled, and padded with channels of zeros."""
    inside, more = out // 4, out - net.channels(x)
    y = net.conv(net.conv(net.conv(x, inside, 2, stride=2), inside), out, 1, act="")
    padding = net.weight(np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64))
    return net.op("Relu", net.op("Add", net.op("Pad", net.pool(x, 2, 2), padding, channels=out), y))


ARCHITECTURES: Final[dict[str, Callable[[], onnx.ModelProto]]] = {
    "resnet18_160": resnet18,
    "mobilenet_v2_192": mobilenet_v2,
    "squeezenet_160": squeezenet,
    "googlenet_128": googlenet,
    "vit_160": vit,
    "unet_160": unet,
}
"""Built wherever models are asked for."""

WIDE: Final[dict[str, Callable[[], onnx.ModelProto]]] = {"enet_240": enet}
"""Without a narrow place: what crosses a cut is never much smaller than the picture. Only for `adaptation.py`."""


def build(name: str, folder: Path) -> Path:
    """Write one of ARCHITECTURES or WIDE to `folder`, unless it is there; its path. KeyError for an unknown name."""
    path = folder / f"{name}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save((ARCHITECTURES | WIDE)[name](), path)
    return path


if __name__ == "__main__":
    for each in ARCHITECTURES | WIDE:
        print(build(each, Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
