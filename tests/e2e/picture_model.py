"""The cameras' model and pictures: small enough for a test, heavy enough for a slow camera to want help."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the reference
from numpy.typing import NDArray
from tests.models import conv, conv_weights, model, node, save, value, weight

Array = NDArray[np.float32]

SIDE = 112
CLASSES = 10
LAYERS = ((3, 8, 2), (8, 96, 1), (96, 16, 2), (16, 96, 1), (96, 8, 2))
"""Channels in, channels out, stride: 150 kB go in, 100, 50 and 6 kB cross the useful cuts; it runs for 1 ms."""

WIDE = 96
"""Channels of the wide layers."""

TOLERANCES = {"raw": 1e-4, "zstd": 1e-4, "f16": 1e-2, "q8": 5e-2, "q4": 0.5}
"""Largest difference that a codec may make, as a share of the largest output."""


def classifier(layers: Sequence[tuple[int, int, int]] = LAYERS, width: int = 1) -> Any:
    """Convolutions, each with its activation, and a linear classifier; the wide ones `width` times as wide."""
    nodes, weights, x = [], [], "x"
    for number, (inn, out, stride) in enumerate(layers):
        y = f"c{number}"
        nodes += [conv(x, y, strides=[stride, stride]), node("Relu", [y], [f"{y}r"])]
        wide_out, wide_in = (width * count if count == WIDE else count for count in (out, inn))
        weights += conv_weights(y, wide_out, wide_in)
        x = f"{y}r"
    nodes += [
        node("Flatten", [x], ["flat"]),
        node("Gemm", ["flat", "g.w", "g.b"], ["y"]),
    ]
    flat = layers[-1][1] * (SIDE // prod(stride for _, _, stride in layers)) ** 2
    weights += [weight("g.w", flat, CLASSES), weight("g.b", CLASSES)]
    return model(nodes, [value("x", [1, 3, SIDE, SIDE])], [value("y", [1, CLASSES])], weights)


def save_classifier(folder: Path, name: str = "person.onnx", width: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return save(classifier(width=width), folder, name)


def picture(index: int) -> Array:
    """Frame `index` of a moving pattern: 256 shades, so that it compresses as pictures do."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] + index
    channels = [np.sin(rows / (5 + c)) * np.cos(columns / (7 - c)) + np.sin((rows + columns) / 11) for c in range(3)]
    shades = np.rint(np.stack(channels) * 60)
    return np.ascontiguousarray(shades[None] / 128, np.float32)


def save_samples(path: Path, count: int = 6) -> Path:
    """Inputs for `splitbus model add --samples`."""
    np.savez(path, x=np.concatenate([picture(17 * index) for index in range(count)])[:, None])
    return path


def one_thread() -> Any:
    """Session options with which emulated speed is exact."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


class Reference:
    """Plain onnxruntime on the whole model."""

    def __init__(self, path: Path) -> None:
        self._session = ort.InferenceSession(str(path), one_thread(), providers=["CPUExecutionProvider"])

    def difference(self, index: int, outputs: list[Array]) -> float:
        """Of an answer to frame `index`, as a share of the largest output."""
        (expected,) = self._session.run(None, {"x": picture(index)})
        (given,) = outputs
        assert given.shape == expected.shape
        return float(np.abs(given - expected).max() / np.abs(expected).max())
