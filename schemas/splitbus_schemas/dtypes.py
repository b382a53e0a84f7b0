"""The element types that a tensor may have on the wire."""

from __future__ import annotations

from typing import Final

import numpy as np

DTYPES: Final = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "float32", "float16", "float64", "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64", "bool",
    )
}  # fmt: skip
"""By name, little-endian."""
