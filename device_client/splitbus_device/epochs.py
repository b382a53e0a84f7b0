"""The highest epoch that a device ever followed, kept over restarts: what was signed long ago is no plan of today."""

from __future__ import annotations

from pathlib import Path

from splitbus_runtime.tally_file import read_tally, write_tally
from splitbus_schemas.errors import BlobError


class EpochFloor:
    """By model. Without a path nothing is kept, and any epoch will do; a damaged file counts as none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._floors = read_tally(path) if path is not None else {}

    def get(self, model: str) -> int:
        """Epochs below this are stale."""
        return self._floors.get(model, 0)

    def lift(self, model: str, epoch: int) -> None:
        """A plan of this epoch is followed. Raises BlobError when that cannot be written down."""
        if self._path is None or epoch <= self.get(model):
            return
        self._floors[model] = epoch
        try:
            write_tally(self._path, self._floors)
        except OSError as error:
            raise BlobError(f"{self._path} cannot be written: {error.strerror}; check the folder") from error
