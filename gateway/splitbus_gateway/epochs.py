"""Numbers plans: every device and model's epochs only grow, across restarts of the gateway."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from splitbus_gateway.state import StreamKey
from splitbus_schemas.errors import ConfigError


class Epochs:
    """The last epoch of each device and model, kept in a file. Raises ConfigError when it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = _read(path)

    def next(self, stream: StreamKey, floor: int) -> int:
        """The next epoch: above all given out before and above `floor`, what the bus still remembers."""
        name = "/".join(stream)
        epoch = max(self._last.get(name, 0), floor) + 1
        self._last[name] = epoch
        self._write()
        return epoch

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("w") as file:
                json.dump(self._last, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}; check the state folder") from error


def _read(path: Path) -> dict[str, int]:
    """What the file holds; nothing when it is missing or damaged, for the bus remembers as well."""
    try:
        data: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    pairs = data.items() if isinstance(data, dict) else ()
    return {name: epoch for name, epoch in pairs if isinstance(epoch, int) and epoch >= 0}
