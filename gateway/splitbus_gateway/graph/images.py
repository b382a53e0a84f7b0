"""Turns a model that takes prepared pictures into one that takes a camera's frames: uint8, [1, H, W, 3], RGB.

What programs do before they call the model becomes ordinary nodes at its beginning: (pixel * scale - mean) / std.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, TypeAlias

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from splitbus_gateway.graph.codec_nodes import Nodes
from splitbus_gateway.graph.model import opset_of, read_proto
from splitbus_gateway.graph.tensors import WIRE_DTYPES, Dim
from splitbus_gateway.graph.weights import external_files
from splitbus_schemas.errors import ConfigError, ModelError

Layout: TypeAlias = Literal["NHWC", "NCHW"]
Color: TypeAlias = Literal["rgb", "bgr"]

CHANNELS: Final = 3
_OPSET: Final = 13  # for a model that uses no default operator
_TO_CHANNELS_FIRST: Final = {3: [2, 0, 1], 4: [0, 3, 1, 2]}


@dataclass(frozen=True)
class ImageInput:
    """How a model's input is made of a frame. Raises ConfigError for what cannot be.

    `mean` and `std` (one number, or one for each channel in the model's own order) are in the units of pixels times
    `scale`: of 0 to 1 with 1/255, as torchvision has them, and of 0 to 255 with 1. `layout` is the model's (None: as
    its shape says), `color` the order of its channels, `size` width and height where the model leaves them open.
    """

    name: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: Fraction = Fraction(1, 255)
    layout: Layout | None = None
    color: Color = "rgb"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ConfigError(f"the scale of pixels is {self.scale}: give 1/255 or 1")
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {1, CHANNELS} or not all(map(math.isfinite, values)):
                raise ConfigError(f"{what} is {_list(values)}: give one number, or one for each of R,G,B")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {_list(self.std)}: pixels are divided by it, so give numbers above 0")
        top = float(255 * self.scale)
        if not all(0 <= value <= top for value in self.mean):
            raise ConfigError(
                f"mean is {_list(self.mean)}, but pixels times scale {self.scale} lie between 0 and {top:g}: "
                f"give means of 0 to 1 with scale 1/255, of 0 to 255 with scale 1"
            )
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"size is {self.size[0]}x{self.size[1]}: give width x height in pixels")


@dataclass(frozen=True)
class _Target:
    """The model's input as it is now."""

    dtype: str
    layout: Layout
    batch: tuple[Dim, ...]
    height: int
    width: int


def frames_model(proto: ModelProto, image: ImageInput, what: str) -> ModelProto:
    """A copy of `proto` whose input `image.name` takes frames, equal to it when it did already.

    Raises ModelError for an input that cannot be an image.
    """
    target = _target(proto, image, what)
    made = ModelProto()
    made.CopyFrom(proto)
    given = next(value for value in made.graph.input if value.name == image.name)
    shape = (*target.batch, target.height, target.width, CHANNELS)
    nodes, last = _preparation(target, image, opset_of(proto) or _OPSET)
    if last == image.name:
        for dim, size in zip(given.type.tensor_type.shape.dim[-3:], shape[-3:], strict=True):
            dim.dim_value = size
        return made
    given.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.UINT8, shape))
    if not opset_of(proto):
        made.opset_import.add(domain="", version=_OPSET)
    _rename(made.graph.node, image.name, last)
    rest = list(made.graph.node)
    made.graph.ClearField("node")
    made.graph.node.extend([*nodes.nodes, *rest])
    made.graph.initializer.extend(nodes.constants)
    return made


def write_frames_model(path: Path, image: ImageInput, folder: Path) -> Path:
    """Write the model in `path`, made to take frames, into `folder`, with the files of its external data.

    Raises ModelError; OSError when `folder` takes nothing.
    """
    proto = read_proto(path)
    made = frames_model(proto, image, str(path))
    for name, file in external_files(proto, path).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    target = folder / path.name
    target.write_bytes(path.read_bytes() if made == proto else made.SerializeToString(deterministic=True))
    return target


# The input ------------------------------------------------------------------------------------------------------------


def _target(proto: ModelProto, image: ImageInput, what: str) -> _Target:
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: value for value in proto.graph.input if value.name not in constants}
    value = inputs.get(image.name)
    if value is None:
        raise ModelError(f"{what} has no input {image.name!r}, its inputs are {', '.join(inputs) or 'none'}")
    if any(output.name == image.name for output in proto.graph.output):
        raise ModelError(f"{what} gives its input {image.name} as an output too, so it cannot become a picture")
    dtype = WIRE_DTYPES.get(value.type.tensor_type.elem_type, "")
    if dtype not in {"float32", "float16", "float64", "uint8"}:
        raise ModelError(f"{what} takes {image.name} as {dtype or 'no tensor'}: an image is of floats or of uint8")
    dims = _dims(value)
    if len(dims) not in _TO_CHANNELS_FIRST:
        raise ModelError(f"{what} takes {image.name} as {_list(dims)}: an image has 3 or 4 axes")
    layout = image.layout or _layout(dims, image.name, what)
    *batch, height, width, channels = dims if layout == "NHWC" else (*dims[:-3], *dims[-2:], dims[-3])
    if isinstance(channels, int) and channels != CHANNELS:
        raise ModelError(f"{what} takes {image.name} with {channels} channels in layout {layout}: pictures have 3")
    wanted = image.size or (None, None)
    return _Target(
        dtype,
        layout,
        tuple(batch),
        _side(height, wanted[1], "height", image.name, what),
        _side(width, wanted[0], "width", image.name, what),
    )


def _dims(value: ValueInfoProto) -> list[Dim]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]


def _layout(dims: Sequence[Dim], name: str, what: str) -> Layout:
    first, last = dims[-3] == CHANNELS, dims[-1] == CHANNELS
    if first == last:
        raise ModelError(f"{what} takes {name} as {_list(dims)}: say with --layout whether that is NHWC or NCHW")
    return "NCHW" if first else "NHWC"


def _side(declared: Dim, wanted: int | None, side: str, name: str, what: str) -> int:
    if isinstance(declared, int):
        if wanted not in {None, declared}:
            raise ModelError(f"{what} takes {name} with {side} {declared}, not {wanted}: leave --size out")
        return declared
    if wanted is None:
        raise ModelError(f"{what} leaves the {side} of {name} open: give one with --size WIDTHxHEIGHT")
    return wanted


# The nodes ------------------------------------------------------------------------------------------------------------


def _preparation(target: _Target, image: ImageInput, opset: int) -> tuple[Nodes, str]:
    """The nodes that make the model's own input, and the name of what the last of them gives.

    Bytes are reordered before they become floats, a quarter of the work; float16 comes last, as programs have it.
    """
    nodes = Nodes(opset, f"{image.name}::prepare")
    last, axis = image.name, len(target.batch) + 2
    if target.layout == "NCHW":
        last, axis = nodes.add("Transpose", [last], perm=_TO_CHANNELS_FIRST[axis + 1]), len(target.batch)
    if image.color == "bgr":
        last = nodes.add("Gather", [last, nodes.constant([2, 1, 0], "int64")], axis=axis)
    if target.dtype == "uint8":
        if (image.mean, image.std) != ((0.0,), (1.0,)):
            raise ModelError(f"input {image.name} takes uint8, which cannot hold a mean of 0: leave --mean, --std out")
        return nodes, last
    return nodes, _normalised(nodes, last, target, image)


def _normalised(nodes: Nodes, last: str, target: _Target, image: ImageInput) -> str:
    """(pixel * scale - mean) / std as (pixel - offset) * gain, without what would change nothing."""
    compute = "float64" if target.dtype == "float64" else "float32"
    scale = float(image.scale)
    last = nodes.cast(last, compute)
    offset = [value / scale for value in image.mean]
    gain = [scale / value for value in image.std]
    if any(offset):
        last = nodes.add("Sub", [last, _channels(nodes, offset, compute, target.layout)])
    if any(value != 1.0 for value in gain):
        last = nodes.add("Mul", [last, _channels(nodes, gain, compute, target.layout)])
    return last if target.dtype == compute else nodes.cast(last, target.dtype)


def _channels(nodes: Nodes, values: Sequence[float], dtype: str, layout: Layout) -> str:
    """One number for each channel; a single one where they are equal, which costs less."""
    if len(set(values)) == 1:
        return nodes.constant(values[0], dtype)
    return nodes.constant([[[value]] for value in values] if layout == "NCHW" else values, dtype)


def _rename(nodes: Iterable[NodeProto], old: str, new: str) -> None:
    """Have the nodes, and those in their subgraphs, read `new` instead of `old`."""
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                _rename_within(graph, old, new)


def _rename_within(graph: GraphProto, old: str, new: str) -> None:
    if any(value.name == old for value in graph.input):
        return  # a name of its own
    _rename(graph.node, old, new)
    for value in graph.output:
        if value.name == old:
            value.name = new


def _list(values: Iterable[object]) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
