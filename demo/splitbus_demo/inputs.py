"""Turns frames into whatever array a model's input asks for: a picture where it looks like one, else smooth noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitbus_demo.pictures import PictureStream, Pixels
from splitbus_schemas.errors import ModelError

Array = NDArray[Any]
Shape = Sequence[int | str | None]

IMAGE_SIZE: Final = 224
"""Pixels along a side that the model leaves open."""
SMALLEST_IMAGE: Final = 8
"""A side below this is no picture's."""
FREE_AXIS: Final = 1
"""Length of any other axis that the model leaves open: a batch of one, a sequence of one."""
LARGEST_INTEGER: Final = 9
"""Noise for integer inputs stays within what the smallest table can be indexed with."""


@dataclass(frozen=True)
class ImageLayout:
    """Where a picture goes in an input: channels (1 or 3) first as in NCHW or last as in NHWC, batched or not."""

    height: int
    width: int
    channels: int
    channels_first: bool
    batch: int | None

    def place(self, frame: Pixels) -> Array:
        """uint8 [height, width, 3] in the input's order and shape."""
        image = frame if self.channels == frame.shape[-1] else frame.mean(-1, keepdims=True).astype(np.uint8)
        image = image.transpose(2, 0, 1) if self.channels_first else image
        return image if self.batch is None else np.broadcast_to(image, (self.batch, *image.shape))


class InputSource:
    """Arrays for one model input, by frame index; the same for the same seed.

    `dtype` is numpy's name; raises ModelError where it is empty or none of numbers or booleans.
    """

    def __init__(self, shape: Shape, dtype: str, *, seed: int = 0) -> None:
        if not dtype or np.dtype(dtype).kind not in "fiub":
            raise ModelError(
                f"the demo cannot make up an input of type {dtype or 'unknown to numpy'}: "
                "give it a model whose inputs are numbers or booleans"
            )
        self._dtype = np.dtype(dtype)
        self._layout = image_layout(shape)
        self._shape = tuple(axis if isinstance(axis, int) else FREE_AXIS for axis in shape)
        self._stream = PictureStream(seed)
        self._seed = seed

    @property
    def shows_pictures(self) -> bool:
        """Whether the input looks like a picture's."""
        return self._layout is not None

    def array(self, index: int) -> Array:
        """The input at frame `index`: contiguous, with symbolic axes filled in."""
        if self._layout is None:
            return noise(self._shape, self._dtype, index, seed=self._seed)
        frame = self._stream.frame(index, height=self._layout.height, width=self._layout.width)
        return as_input(frame, self._layout, self._dtype)


def preprocess(frame: Pixels) -> NDArray[np.float32]:
    """uint8 RGB [height, width, 3] -> float32 [1, 3, height, width], (pixel - 127) / 128."""
    height, width, channels = frame.shape
    layout = ImageLayout(height, width, channels, channels_first=True, batch=1)
    return as_input(frame, layout, np.dtype(np.float32))


def as_input(frame: Pixels, layout: ImageLayout, dtype: np.dtype[Any]) -> Array:
    """Pixels for unsigned integers, pixels less 128 for int8, else (pixel - 127) / 128."""
    image = layout.place(frame)
    if dtype.kind == "u":
        return np.ascontiguousarray(image, dtype)
    if dtype == np.int8:
        return np.ascontiguousarray(image.astype(np.int16) - 128, dtype)
    scaled = np.ascontiguousarray(image, np.float32)
    scaled -= 127
    scaled /= 128
    return scaled.astype(dtype, copy=False)


def image_layout(shape: Shape) -> ImageLayout | None:
    """How a picture fits into `shape` (three or four axes, 1 or 3 channels); None when it does not."""
    batched = len(shape) == 4
    batch = (shape[0] if isinstance(shape[0], int) else FREE_AXIS) if batched else None
    axes = shape[1:] if batched else shape
    if len(axes) != 3:
        return None
    for channels_first, channels, sides in ((True, axes[0], axes[1:]), (False, axes[2], axes[:2])):
        height, width = (side if isinstance(side, int) else IMAGE_SIZE for side in sides)
        if channels in (1, 3) and min(height, width) >= SMALLEST_IMAGE:
            return ImageLayout(height, width, int(channels), channels_first=channels_first, batch=batch)
    return None


def noise(shape: tuple[int, ...], dtype: np.dtype[Any], index: int, *, seed: int = 0) -> Array:
    """Waves along every axis that move a little with each frame; -1 to 1, integers 0 to 9, booleans by sign."""
    rng = np.random.default_rng(seed)
    wave = np.zeros(shape)
    for axis, length in enumerate(shape):
        frequency, phase, speed = rng.uniform((0.2, 0, 0.02), (2, 2 * np.pi, 0.1))
        ripple = np.sin(frequency * np.arange(length) + phase + speed * index)
        wave += ripple.reshape([length if other == axis else 1 for other in range(len(shape))])
    wave /= max(len(shape), 1)
    if dtype.kind == "b":
        return wave > 0
    if dtype.kind in "iu":
        return np.rint((wave + 1) / 2 * LARGEST_INTEGER).astype(dtype)
    return wave.astype(dtype)
