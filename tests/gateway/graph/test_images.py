from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - the reference
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker
from tests import models

from splitbus_gateway.graph.images import ImageInput, frames_model, write_frames_model
from splitbus_schemas.errors import ConfigError, ModelError

Array = NDArray[Any]

TORCHVISION: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
IN_PIXELS: dict[str, Any] = {"mean": (123.7, 116.8, 103.9), "std": (58.4, 57.1, 57.4), "scale": Fraction(1)}
ONE_FOR_ALL: dict[str, Any] = {"mean": (127.0,), "std": (128.0,), "scale": Fraction(1)}
PLAIN: dict[str, Any] = {}
PIXELS: dict[str, Any] = {"scale": Fraction(1)}
SIZE = (10, 14)


def convolution(shape: list[Any], *, opset: int = 17, dtype: int = TensorProto.FLOAT) -> ModelProto:
    """One convolution of a 3-channel input x, in either layout, with a batch or without."""
    kind = "float16" if dtype == TensorProto.FLOAT16 else "float32"
    rank, last = len(shape), "x"
    nodes = []
    if shape[-1] == 3:
        nodes.append(models.node("Transpose", [last], ["n"], perm=[0, 3, 1, 2] if rank == 4 else [2, 0, 1]))
        last = "n"
    if rank == 3:
        nodes.append(models.node("Reshape", [last, "four"], ["m"]))
        last = "m"
    nodes += [models.conv(last, "y")]
    weights = [*models.conv_weights("y", 4, 3, 3, kind), models.constant("four", [1, 3, *SIZE], "int64")]
    batch = shape[0] if rank == 4 else 1
    height, width = shape[-3:-1] if shape[-1] == 3 else shape[-2:]
    return models.model(
        nodes, [models.value("x", shape, dtype)], [models.value("y", [batch, 4, height, width], dtype)], weights,
        opset=opset,
    )  # fmt: skip


def frame(*lead: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*lead, *SIZE, 3), np.uint8)


def prepared(pixels: Array, image: ImageInput, layout: str, dtype: str) -> Array:
    """As a program does it that calls the model without us."""
    values = pixels.astype(np.float64) * float(image.scale)
    if image.color == "bgr":
        values = values[..., ::-1]
    values = (values - np.array(image.mean)) / np.array(image.std)
    moved: Array = np.moveaxis(values, -1, -3) if layout == "NCHW" else values
    return moved.astype(dtype)


def run(proto: ModelProto, feed: Array) -> Array:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(feed)})
    return np.asarray(found)


def check(proto: ModelProto, image: ImageInput, layout: str, pixels: Array, dtype: str = "float32") -> None:
    """Frames in must give what prepared pictures give, to 1e-5 (float16: to its own step)."""
    made = frames_model(proto, image, "model.onnx")
    checker.check_model(made)
    expected = run(proto, prepared(pixels, image, layout, dtype)).astype(np.float64)
    found = run(made, pixels).astype(np.float64)
    assert found.shape == expected.shape
    tolerance = 5e-3 if dtype == "float16" else 1e-5
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("opset", models.OPSETS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_frames_give_what_prepared_pictures_give_at_every_opset(opset: int, layout: str) -> None:
    shape = [1, 3, *SIZE] if layout == "NCHW" else [1, *SIZE, 3]
    check(convolution(shape, opset=opset), ImageInput("x", color="bgr", **TORCHVISION), layout, frame(1))


@pytest.mark.parametrize("numbers", [TORCHVISION, IN_PIXELS, ONE_FOR_ALL, PLAIN, PIXELS])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("shape", [[1, 3, *SIZE], [1, *SIZE, 3], [3, *SIZE], [*SIZE, 3], ["N", 3, *SIZE]])
def test_every_layout_colour_and_unit(numbers: dict[str, Any], color: Any, shape: list[Any]) -> None:
    layout = "NHWC" if shape[-1] == 3 else "NCHW"
    image = ImageInput("x", color=color, **numbers)
    lead = [2] if shape[0] == "N" else [1] * (len(shape) - 3)
    check(convolution(shape), image, layout, frame(*lead))


@pytest.mark.parametrize(("dtype", "name"), [(TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "float64")])
def test_other_floats(dtype: int, name: str) -> None:
    if name == "float16":
        check(convolution([1, 3, *SIZE], dtype=dtype), ImageInput("x", **TORCHVISION), "NCHW", frame(1), name)
        return
    nodes, weights = [models.node("Mul", ["x", "w"], ["y"])], [models.constant("w", 2.0, "float64")]
    proto = models.model(
        nodes, [models.value("x", [1, 3, *SIZE], dtype)], [models.value("y", [1, 3, *SIZE], dtype)], weights
    )
    check(proto, ImageInput("x", **TORCHVISION), "NCHW", frame(1), name)


def test_the_input_keeps_its_name_and_nothing_is_done_that_changes_nothing() -> None:
    proto = convolution([1, *SIZE, 3])
    made = frames_model(proto, ImageInput("x", scale=Fraction(1)), "m")
    (given,) = made.graph.input
    assert given.name == "x"
    assert given.type.tensor_type.elem_type == TensorProto.UINT8
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [1, *SIZE, 3]
    assert [node.op_type for node in made.graph.node] == ["Cast", *(node.op_type for node in proto.graph.node)]
    nodes = frames_model(convolution([1, 3, *SIZE]), ImageInput("x", **TORCHVISION), "m").graph.node
    assert [node.op_type for node in nodes] == ["Transpose", "Cast", "Sub", "Mul", "Conv"]


def test_what_a_subgraph_captures_is_the_prepared_picture() -> None:
    branch = [
        onnx.helper.make_graph([models.node("Mul", ["x", factor], ["z"])], factor, [], [onnx.ValueInfoProto(name="z")])
        for factor in ("two", "three")
    ]
    nodes = [
        models.node("ReduceMean", ["x"], ["mean"], keepdims=0),
        models.node("Greater", ["mean", "zero"], ["bright"]),
        models.node("If", ["bright"], ["y"], then_branch=branch[0], else_branch=branch[1]),
    ]
    weights = [models.constant(name, float(n)) for n, name in enumerate(("zero", "one", "two", "three"))]
    proto = models.model(nodes, [models.value("x", [1, 3, *SIZE])], [models.value("y", [1, 3, *SIZE])], weights)
    image = ImageInput("x", **TORCHVISION)
    for pixels in (frame(1) // 4, frame(1) // 4 + 190):
        check(proto, image, "NCHW", pixels)


def test_a_size_that_the_model_leaves_open_is_given() -> None:
    proto = convolution([1, 3, "H", "W"])
    made = frames_model(proto, ImageInput("x", size=SIZE[::-1]), "m")
    assert [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim] == [1, *SIZE, 3]
    check(proto, ImageInput("x", size=SIZE[::-1]), "NCHW", frame(1))


def test_a_model_that_takes_frames_already_is_left_as_it_is(tmp_path: Path) -> None:
    nodes = [models.node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), models.node("Relu", ["f"], ["y"])]
    shape = [1, *SIZE, 3]

    def bytes_in(dims: list[Any]) -> ModelProto:
        return models.model(nodes, [models.value("x", dims, TensorProto.UINT8)], [models.value("y", dims)])

    path = models.save(bytes_in(shape), tmp_path)
    (tmp_path / "out").mkdir()
    assert write_frames_model(path, ImageInput("x"), tmp_path / "out").read_bytes() == path.read_bytes()
    sized = frames_model(bytes_in([1, "H", "W", 3]), ImageInput("x", size=SIZE[::-1]), "m")
    assert sized.graph.input == bytes_in(shape).graph.input
    first = frames_model(bytes_in([1, 3, *SIZE]), ImageInput("x"), "m")
    pixels = frame(1)
    assert np.array_equal(run(first, pixels), np.moveaxis(pixels, -1, 1).astype(np.float32))
    with pytest.raises(ModelError, match="takes uint8, which cannot hold a mean"):
        frames_model(bytes_in([1, 3, *SIZE]), ImageInput("x", mean=(0.5,)), "m")


def test_external_data_goes_along(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = models.external(tmp_path / "in")
    made = write_frames_model(path, ImageInput("x"), tmp_path / "out")
    assert made.name == path.name
    assert (tmp_path / "out" / "model.data").read_bytes() == (tmp_path / "in" / "model.data").read_bytes()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    ours, theirs = (ort.InferenceSession(p, providers=["CPUExecutionProvider"]) for p in (made, path))
    (found,) = ours.run(None, {"x": pixels})
    (expected,) = theirs.run(None, {"x": np.moveaxis(pixels / np.float32(255), -1, 1)})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    (tmp_path / "in" / "model.data").unlink()
    with pytest.raises(ModelError, match=r"keeps weights in model\.data, which is not there"):
        write_frames_model(path, ImageInput("x"), tmp_path / "out")


def test_the_same_declaration_gives_the_same_file(tmp_path: Path) -> None:
    path = models.save(models.chain(), tmp_path)
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.append(write_frames_model(path, ImageInput("x", **TORCHVISION), tmp_path / folder).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("shape", "image", "says"),
    [
        ([1, 3, *SIZE], {"name": "y"}, "has no input 'y', its inputs are x"),
        ([1, 1, *SIZE], {"layout": "NCHW"}, "with 1 channels in layout NCHW: pictures have 3"),
        ([1, *SIZE, 3], {"layout": "NCHW"}, "with 10 channels in layout NCHW"),
        ([1, 3, 8, 3], {}, "takes x as 1,3,8,3: say with --layout"),
        ([1, "C", 8, "W"], {}, "say with --layout"),
        ([1, 3, "H", "W"], {}, "leaves the height of x open: give one with --size"),
        ([1, 3, *SIZE], {"size": (8, 8)}, "with height 10, not 8: leave --size out"),
        ([1, 3], {}, "an image has 3 or 4 axes"),
    ],
)
def test_an_input_that_is_no_image_is_told(shape: list[Any], image: dict[str, Any], says: str) -> None:
    proto = models.model([models.node("Relu", ["x"], ["y"])], [models.value("x", shape)], [models.value("y", shape)])
    with pytest.raises(ModelError, match=says) as caught:
        frames_model(proto, ImageInput(**{"name": "x", **image}), "model.onnx")
    assert str(caught.value).startswith("model.onnx ")


def test_other_inputs_that_are_no_image() -> None:
    shape = [1, 3, *SIZE]
    number = [models.value("x", shape, TensorProto.INT8)]
    proto = models.model([models.node("Identity", ["x"], ["y"])], number, [models.value("y", shape, TensorProto.INT8)])
    with pytest.raises(ModelError, match="takes x as int8: an image is of floats or of uint8"):
        frames_model(proto, ImageInput("x"), "m")
    proto = models.model(
        [models.node("Relu", ["x"], ["y"])],
        [models.value("x", shape)],
        [models.value("y", shape), models.value("x", shape)],
    )
    with pytest.raises(ModelError, match="gives its input x as an output too"):
        frames_model(proto, ImageInput("x"), "m")


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ({"mean": (0.5, 0.5)}, "mean is 0.5,0.5: give one number, or one for each of R,G,B"),
        ({"std": (1.0, float("nan"), 1.0)}, "std is 1,nan,1: give one number"),
        ({"std": (0.0,)}, "std is 0: pixels are divided by it"),
        ({"mean": (123.7, 116.8, 103.9)}, "lie between 0 and 1: give means of 0 to 1 with scale 1/255"),
        ({"mean": (-1.0,)}, "lie between 0 and 1"),
        ({"mean": (300.0,), "scale": Fraction(1)}, "lie between 0 and 255"),
        ({"scale": Fraction(0)}, "the scale of pixels is 0: give 1/255 or 1"),
        ({"size": (0, 4)}, "size is 0x4: give width x height"),
    ],
)
def test_numbers_that_cannot_be_are_told(image: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ImageInput("x", **image)
