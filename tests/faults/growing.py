"""A file that another process adds lines to, read as it grows."""

from __future__ import annotations

from pathlib import Path


class GrowingFile:
    """Gives each line once; one that is being written is left for later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0

    def fresh(self) -> list[bytes]:
        """The lines that were finished since the last call; none while there is no file."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            found = file.read()
        whole = found.rfind(b"\n") + 1
        self._read_to += whole
        return found[:whole].splitlines()
