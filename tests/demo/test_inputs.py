"""Any input of any model gets an array of its shape and type."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_demo.inputs import InputSource, image_layout, noise, preprocess
from splitbus_demo.pictures import PictureStream
from splitbus_schemas.errors import ModelError


def test_preprocess_is_channels_first_and_centred() -> None:
    frame = np.zeros((2, 4, 3), np.uint8)
    frame[1, 2] = (255, 127, 63)
    tensor = preprocess(frame)
    assert (tensor.shape, tensor.dtype.name) == ((1, 3, 2, 4), "float32")
    assert tensor[0, :, 1, 2].tolist() == [1.0, 0.0, -0.5]
    assert tensor[0, 0, 0, 0] == -127 / 128
    assert tensor.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((1, 3, 224, 224), "float32", (1, 3, 224, 224)),
        (("N", 3, 96, 128), "float16", (1, 3, 96, 128)),
        ((1, 320, 240, 3), "uint8", (1, 320, 240, 3)),
        ((None, None, None, 3), "int8", (1, 224, 224, 3)),
        ((2, 1, 28, 28), "float32", (2, 1, 28, 28)),
        ((3, 64, 64), "float64", (3, 64, 64)),
    ],
)
def test_image_inputs_show_the_stream(shape: tuple[Any, ...], dtype: str, expected: tuple[int, ...]) -> None:
    source = InputSource(shape, dtype)
    array = source.array(5)
    assert source.shows_pictures
    assert (array.shape, array.dtype) == (expected, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.std() > 0.1


def test_pixels_keep_their_values_in_every_layout() -> None:
    frame = PictureStream().frame(5)
    np.testing.assert_array_equal(InputSource((1, 224, 224, 3), "uint8").array(5)[0], frame)
    np.testing.assert_array_equal(InputSource((1, 3, 224, 224), "uint8").array(5)[0].transpose(1, 2, 0), frame)
    np.testing.assert_array_equal(InputSource((1, 3, 224, 224), "float32").array(5), preprocess(frame))
    signed = InputSource((224, 224, 3), "int8").array(5)
    np.testing.assert_array_equal(signed.astype(int) + 128, frame)


@pytest.mark.parametrize("shape", [(), (1, 16), (1, 4, 32, 32), (1, 3, 4, 4), ("N", "T"), (1, 2, 3, 32, 32)])
def test_other_inputs_get_noise(shape: tuple[Any, ...]) -> None:
    assert image_layout(shape) is None
    array = InputSource(shape, "float32").array(0)
    assert array.shape == tuple(axis if isinstance(axis, int) else 1 for axis in shape)


@given(
    shape=st.lists(st.integers(0, 5), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "float16", "int64", "uint8", "int8", "bool"]),
    index=st.integers(0, 10**6),
)
def test_noise_is_bounded_and_repeatable(shape: tuple[int, ...], dtype: str, index: int) -> None:
    array = noise(shape, np.dtype(dtype), index, seed=3)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    np.testing.assert_array_equal(array, noise(shape, np.dtype(dtype), index, seed=3))
    low, high = {"f": (-1, 1), "i": (0, 9), "u": (0, 9), "b": (0, 1)}[np.dtype(dtype).kind]
    assert np.all((low <= array) & (array <= high))


def test_noise_moves_smoothly() -> None:
    first, second, later = (noise((8, 50), np.dtype("float32"), index) for index in (0, 1, 40))
    assert 0 < np.abs(first - second).max() < 0.11
    assert np.abs(first - later).max() > 0.3


@pytest.mark.parametrize("dtype", ["", "str", "complex64"])
def test_an_input_that_cannot_be_made_up_is_named(dtype: str) -> None:
    with pytest.raises(ModelError, match="cannot make up an input of type"):
        InputSource((1, 2), dtype)
