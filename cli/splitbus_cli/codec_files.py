"""`splitbus codec`: tensors into a coded file and back, and the calibration that both need."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from rich.console import Console

from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import shape, size
from splitbus_gateway.codec_files import decode_tensors, encode_tensors, needs_calibration
from splitbus_gateway.registry import Registry
from splitbus_gateway.transform import Calibrated
from splitbus_gateway.transform.archive import read_archive, write_archive
from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ConfigError, DecodeError, ModelError
from splitbus_schemas.tensor_file import TensorFile, read_file, write_file

UNNAMED: Final = "x"
"""What the tensor of an .npy is called when nothing says otherwise."""


def encode(path: Path, codec: str, out: Path, *, calibration: Path | None, tensor: str | None, as_json: bool) -> None:
    """Code a file's tensors. Raises ConfigError."""
    calibrated = _calibrated(calibration, codec)
    values = _tensors(path, tensor, calibrated)
    file = encode_tensors(values, codec, calibrated)
    data = write_file(file)
    _write(out, data)
    _tell(out, file, len(data), sum(array.nbytes for array in values.values()), as_json=as_json)


def decode(path: Path, out: Path, *, calibration: Path | None, as_json: bool) -> None:
    """Make tensors of a coded file. Raises ConfigError, DecodeError."""
    data = _read(path)
    try:
        file = read_file(data)
        values = decode_tensors(file, _calibrated(calibration, file.codec))
    except DecodeError as error:
        raise DecodeError(f"{path} cannot be decoded: {error}") from error
    _save(out, values)
    _tell(out, file, len(data), sum(array.nbytes for array in values.values()), as_json=as_json)


def export(registry: Registry, name: str, out: Path, *, as_json: bool) -> None:
    """Write a model's calibration. Raises ModelError when it has none."""
    found = registry.transforms(registry.get(name).model)
    if not found:
        raise ModelError(f"model {name} was not calibrated: add it again with --calibrate DIR")
    data = write_archive(found)
    _write(out, data)
    tensors = {tensor: [len(one.transform.mean), *one.transform.weight.shape] for tensor, one in found.items()}
    if as_json:
        print(json.dumps({"wrote": str(out), "bytes": len(data), "tensors": list(tensors)}))
    else:
        print(f"wrote {out}: {size(len(data))}, calibrated tensors {', '.join(tensors)}")


def _tell(out: Path, file: TensorFile, coded: int, plain: int, *, as_json: bool) -> None:
    smaller = plain / max(coded, 1)
    rows: list[dict[str, Any]] = [
        {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "coding": t.coding, "bytes": len(t.data)}
        for t in file.tensors
    ]
    if as_json:
        facts = {"wrote": str(out), "codec": file.codec, "file_bytes": coded, "tensor_bytes": plain}
        print(json.dumps({**facts, "smaller": round(smaller, 2), "tensors": rows}))
        return
    table = new_table(None, "sent", "type", "shape", "coding", "bytes")
    for row in rows:
        add_row(table, row["name"], row["dtype"], shape(row["shape"]), row["coding"], str(row["bytes"]))
    Console().print(table)
    print(f"wrote {out}; {file.codec}: {size(coded)} in the file for {size(plain)} of tensors, {smaller:.1f}x smaller")


def _calibrated(path: Path | None, codec: str) -> Mapping[str, Calibrated]:
    if not needs_calibration(codec):
        return {}
    if path is None:
        raise ConfigError(
            f"codec {codec} needs what was calibrated: write it with splitbus codec calibration NAME FILE, "
            "and give it as --calibration FILE"
        )
    try:
        return read_archive(_read(path))
    except ModelError as error:
        raise ConfigError(f"{path} holds no calibration: give what splitbus codec calibration wrote") from error


def _tensors(path: Path, name: str | None, calibrated: Mapping[str, Calibrated]) -> dict[str, Array]:
    data = _read(path)
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        named = (
            {key: np.asarray(loaded[key]) for key in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else None
        )
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ConfigError(f"{path} holds no arrays: write it with numpy.save or numpy.savez") from error
    if named is None:
        return {name or _only(calibrated): np.asarray(loaded)}
    if name is not None:
        if name not in named:
            raise ConfigError(f"{path} has no tensor {name}, it has {', '.join(named) or 'none'}")
        return {name: named[name]}
    if not named:
        raise ConfigError(f"{path} holds no arrays: write it with numpy.savez")
    return named


def _only(calibrated: Mapping[str, Calibrated]) -> str:
    if len(calibrated) > 1:
        raise ConfigError(f"an .npy does not name its tensor: say --tensor, one of {', '.join(calibrated)}")
    return next(iter(calibrated), UNNAMED)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def _save(path: Path, values: Mapping[str, Array]) -> None:
    target = io.BytesIO()
    if path.suffix == ".npy":
        if len(values) != 1:
            raise ConfigError(f"{path} can hold one tensor, there are {', '.join(values)}: write an .npz")
        np.save(target, next(iter(values.values())), allow_pickle=False)
    else:
        arrays: dict[str, Any] = dict(values)
        np.savez(target, **arrays)
    _write(path, target.getvalue())
