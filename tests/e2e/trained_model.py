"""A classifier that was trained, on pictures that have classes: random convolutions, their linear layer fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - the reference
from numpy.typing import NDArray
from onnx import numpy_helper
from tests.e2e.picture_model import CLASSES, SIDE, classifier, one_thread
from tests.models import save

Array = NDArray[np.float32]

LAYERS = ((3, 8, 4), (8, 96, 1), (96, 96, 1), (96, 96, 1), (96, 96, 1), (96, 8, 2))
"""6,000 values cross behind the first one, and nearly all of the work is after that: 5 ms."""

TRAINED_ON = 400
_RIDGE = 10.0
_SHADES = 128


def stripes(kind: int, seed: int) -> Array:
    """A picture of class `kind`: stripes of its own direction and width, moved a little, in some light, with noise."""
    rng = np.random.default_rng([kind, seed])
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    angle, width = np.pi * kind / CLASSES, 4 + kind % 3
    along = rows * np.sin(angle) + columns * np.cos(angle)
    waves = np.sin(along / width + rng.uniform(-0.6, 0.6, (3, 1, 1))) * rng.uniform(0.4, 1)
    noisy = waves + rng.normal(0, 0.15, (3, SIDE, SIDE)) + rng.normal(0, 0.2, (3, 1, 1))
    return np.ascontiguousarray(np.rint(noisy * 50)[None] / _SHADES, np.float32)


def save_trained(folder: Path, name: str = "person.onnx") -> Path:
    """Convolutions as of `picture_model`, whose last layer tells the kinds of stripes apart (least squares)."""
    model = classifier(LAYERS)
    kinds = np.arange(TRAINED_ON) % CLASSES
    features = _features(model, [stripes(int(kind), seed) for seed, kind in enumerate(kinds)])
    mean, spread = features.mean(axis=0), float(features.std())
    scaled = (features - mean) / spread
    gram = scaled @ scaled.T + _RIDGE * np.eye(TRAINED_ON)  # as many equations as pictures, fewer than features
    weights = scaled.T @ np.linalg.solve(gram, np.eye(CLASSES)[kinds] - 1 / CLASSES) / spread
    fitted = {"g.w": weights, "g.b": -mean @ weights}
    kept = [one for one in model.graph.initializer if one.name not in fitted]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), n) for n, v in fitted.items())
    folder.mkdir(parents=True, exist_ok=True)
    return save(model, folder, name)


def _features(model: Any, pictures: list[Array]) -> NDArray[np.float64]:
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.append(onnx.helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(part.SerializeToString(), one_thread(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["flat"], {"x": x})[0] for x in pictures]).astype(np.float64)


class Whole:
    """Plain onnxruntime on the whole model."""

    def __init__(self, path: Path) -> None:
        self._session = ort.InferenceSession(str(path), one_thread(), providers=["CPUExecutionProvider"])

    def best(self, x: Array) -> int:
        return int(np.asarray(self._session.run(None, {"x": x})[0]).argmax())

    def undecided(self, first: Array, second: Array, steps: int = 14) -> Array:
        """Between two pictures of different classes, one that is hardly still of the first one's class."""
        own, low, high = self.best(first), 0.0, 1.0
        for _ in range(steps):
            middle = (low + high) / 2
            low, high = (middle, high) if self.best(_blend(first, second, middle)) == own else (low, middle)
        return _blend(first, second, low)


def _blend(first: Array, second: Array, share: float) -> Array:
    return np.ascontiguousarray(first * (1 - share) + second * share, np.float32)
