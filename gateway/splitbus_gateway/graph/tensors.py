"""What a tensor is, as far as a cut needs to know: its name, its type on the wire, its shape and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import TensorProto

# The element types that packets carry; the rest (string, bfloat16, 4-bit, complex) stay inside a slice.
WIRE_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
}
ONNX_DTYPES = {dtype: number for number, dtype in WIRE_DTYPES.items()}

Dim = int | str | None


@dataclass(frozen=True)
class TensorSpec:
    """A tensor at the edge of a slice.

    `shape` is as declared: a number, a symbol's name, or None where the model does not say. `sizes` are the numbers
    for the shapes that the graph was loaded with (1 for a symbolic size), and give `elements` and `nbytes`.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.sizes)

    @property
    def nbytes(self) -> int:
        return self.elements * np.dtype(self.dtype).itemsize

    @property
    def is_float(self) -> bool:
        return self.dtype in {"float16", "float32", "float64"}
