"""Which model a session is about: a file, bytes, or a name that the gateway knows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from splitbus_schemas.errors import ConfigError, ModelError
from splitbus_schemas.ids import is_id, sha256

if TYPE_CHECKING:
    from splitbus_device.uplink import Uplink


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The model that answers when nobody else does."""

    source: Path | bytes
    what: str
    """Its name in errors."""
    sha256: str = ""
    """Hash of its main file; "" until somebody needs it."""
    path: Path | None = None

    def digest(self) -> str:
        """The main file's hash."""
        return self.sha256 or sha256(self.source if isinstance(self.source, bytes) else self.source.read_bytes())


def resolve(model: str | bytes | os.PathLike[str], uplink: Uplink | None) -> LocalModel:
    """The local model for what the caller named. Raises ConfigError, ModelError, BusError or BlobError."""
    if isinstance(model, bytes):
        return LocalModel(model, f"model of {len(model)} bytes", sha256(model))
    path = Path(model)
    if path.is_file():
        return LocalModel(path, str(path), path=path)
    name = str(model)
    if not is_id(name):
        raise ModelError(f"{name} is not there: give the path of an ONNX file, or the name of a registered model")
    if uplink is None:
        raise ConfigError(f"{name!r} is no file here; to fetch it as a registered model, give broker='mqtt://HOST'")
    return uplink.fetch_model(name)
