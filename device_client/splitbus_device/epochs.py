"""The highest epoch that a device ever followed, kept over restarts: what was signed long ago is no plan of today."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from splitbus_schemas.errors import BlobError


class EpochFloor:
    """By model. Without a path nothing is kept, and any epoch will do."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._floors = _read(path) if path is not None else {}

    def get(self, model: str) -> int:
        """Epochs below this are stale."""
        return self._floors.get(model, 0)

    def lift(self, model: str, epoch: int) -> None:
        """A plan of this epoch is followed. Raises BlobError when that cannot be written down."""
        if self._path is None or epoch <= self.get(model):
            return
        self._floors[model] = epoch
        part = self._path.with_suffix(".part")
        try:
            with part.open("w") as file:
                json.dump(self._floors, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            raise BlobError(f"{self._path} cannot be written: {error.strerror}; check the folder") from error


def _read(path: Path) -> dict[str, int]:
    """What the file holds; nothing when it is missing or damaged: then the first signed plan counts."""
    try:
        data: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    pairs = data.items() if isinstance(data, dict) else ()
    return {model: epoch for model, epoch in pairs if isinstance(epoch, int) and epoch >= 0}
