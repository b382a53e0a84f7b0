"""Pictures in files as inputs of a model that takes frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from splitbus_gateway.graph import TensorSpec
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ModelError
from splitbus_schemas.pictures import is_picture

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def frame_input(inputs: Sequence[TensorSpec], what: str) -> TensorSpec:
    """The one input, which takes frames. Raises ModelError when `what`, a folder of pictures, cannot feed the model."""
    found = [spec for spec in inputs if is_picture(spec.dtype, spec.sizes)]
    if not found:
        takes = ", ".join(f"{spec.name} as {spec.dtype}{list(spec.shape)}" for spec in inputs)
        raise ModelError(f"{what} holds pictures, the model takes {takes}: declare its image with --image-input")
    if len(inputs) > 1:
        names = ", ".join(spec.name for spec in inputs)
        raise ModelError(f"{what} holds pictures, the model has inputs {names}: give .npz files that name them")
    if not all(isinstance(size, int) for size in found[0].shape[-3:]):
        raise ModelError(f"{found[0].name} leaves the size of pictures open: say --image-input {found[0].name} --size")
    return found[0]


def read_picture(path: Path, spec: TensorSpec) -> Array:
    """The largest centred part of the picture that has the input's proportions, scaled to its size: uint8, RGB.

    Raises ModelError for a file that is no picture.
    """
    height, width = spec.sizes[-3:-1]
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ModelError(f"{path} is no picture that can be read: {error}") from error
    fitted = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(spec.sizes)
