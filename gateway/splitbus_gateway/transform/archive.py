"""A model's calibrated transforms as a file, and back: an .npz without objects."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from splitbus_gateway.transform.calibrate import Calibrated
from splitbus_gateway.transform.layout import Layout
from splitbus_gateway.transform.quantise import Transform
from splitbus_schemas.entropy_tables import read_tables
from splitbus_schemas.errors import DecodeError, ModelError

ARCHIVE: Final = ".transforms.npz"
"""Its name beside the model's files."""

_PARTS: Final = ("mean", "forward", "inverse", "weight")
_INDEX: Final = "index"


def write_archive(found: Mapping[str, Calibrated]) -> bytes:
    """The bytes of transforms by tensor name."""
    index = [{"tensor": name, "layout": asdict(one.transform.layout)} for name, one in found.items()]
    arrays: dict[str, Any] = {_INDEX: np.frombuffer(json.dumps(index).encode(), np.uint8)}
    for number, one in enumerate(found.values()):
        arrays[f"{number}.tables"] = np.frombuffer(one.tables.blob, np.uint8)
        arrays |= {f"{number}.{part}": getattr(one.transform, part).astype(np.float32) for part in _PARTS}
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def read_archive(data: bytes) -> dict[str, Calibrated]:
    """What `write_archive` wrote. Raises ModelError for anything else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            index = json.loads(arrays[_INDEX].tobytes())
            return {entry["tensor"]: _read(arrays, number, entry["layout"]) for number, entry in enumerate(index)}
    except (BadZipFile, EOFError, OSError, KeyError, TypeError, ValueError, DecodeError) as error:
        raise ModelError(f"the model's transforms cannot be read ({error}): remove the model, add it again") from error


def _read(arrays: Mapping[str, Any], number: int, layout: Mapping[str, Any]) -> Calibrated:
    parts = {part: arrays[f"{number}.{part}"] for part in _PARTS}
    axes = Layout(layout["channel"], tuple(layout["space"]), tuple(layout["smooth"]))
    return Calibrated(Transform(axes, **parts), read_tables(arrays[f"{number}.tables"].tobytes()))
