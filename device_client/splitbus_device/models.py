"""Which model a session is about: a file, bytes, or a name that the gateway knows."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from splitbus_schemas.errors import ConfigError, ModelError
from splitbus_schemas.ids import is_id


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The model that answers when nobody else does."""

    source: Path | bytes
    what: str
    """Its name in errors."""


Fetch: TypeAlias = Callable[[str], Path]
"""The main file of a registered model. Raises BusError, BlobError or ModelError."""


def resolve(model: str | bytes | os.PathLike[str], fetch: Fetch | None) -> LocalModel:
    """The local model for what the caller named. Raises ConfigError, ModelError, BusError or BlobError."""
    if isinstance(model, bytes):
        return LocalModel(model, f"model of {len(model)} bytes")
    path = Path(model)
    if path.is_file():
        return LocalModel(path, str(path))
    name = str(model)
    if not is_id(name):
        raise ModelError(f"{name} is not there: give the path of an ONNX file, or the name of a registered model")
    if fetch is None:
        raise ConfigError(f"{name!r} is no file here; to fetch it as a registered model, give broker='mqtt://HOST'")
    fetched = fetch(name)
    return LocalModel(fetched, f"model {name} ({fetched})")
