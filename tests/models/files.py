"""Models with files beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from tests.models.layers import chain
from tests.models.parts import FLOAT, INT64, constant, model, node, save, value, weight


def external(folder: Path, name: str = "model.onnx") -> Path:
    """The chain with all its weights in a file beside it."""
    path = folder / name
    onnx.save_model(chain(), path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


def huge(folder: Path) -> Path:
    """More than 2 GB of weights in a sparse file; the rows that the model reads are near its end and not zero."""
    rows, width = 2**21 + 2**16, 256
    nodes = [
        node("Gather", ["table", "ids"], ["h"]),
        node("MatMul", ["h", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    table = TensorProto(name="table", data_type=FLOAT, dims=[rows, width], data_location=TensorProto.EXTERNAL)
    for key, entry in {"location": "table.data", "offset": "0", "length": str(rows * width * 4)}.items():
        table.external_data.add(key=key, value=entry)
    ids = node("Add", ["x", "base"], ["ids"])
    weights = [table, weight("w", width, width), constant("base", rows - 4, "int64")]
    proto = model([ids, *nodes], [value("x", ["N"], INT64)], [value("y", ["N", width])], weights)
    with (folder / "table.data").open("wb") as file:
        file.seek((rows - 4) * width * 4)
        file.write(_numbers(4, width).tobytes())
    return save(proto, folder, "huge.onnx")


def _numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)
