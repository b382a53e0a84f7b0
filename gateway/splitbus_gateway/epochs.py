"""Numbers plans: every device and model's epochs only grow, across restarts of the gateway."""

from __future__ import annotations

from pathlib import Path

from splitbus_gateway.state import StreamKey
from splitbus_runtime.tally_file import read_tally, write_tally
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.terms import base_epoch


class Epochs:
    """The last epoch of each device and model, kept in a file. Raises ConfigError when it cannot be written.

    A missing or damaged file is no harm: the bus remembers as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = read_tally(path)
        self._base = 0

    def begin(self, term: int) -> None:
        """From now on they are above all of earlier terms."""
        self._base = base_epoch(term)

    def next(self, stream: StreamKey, floor: int) -> int:
        """The next epoch: above all given out before and above `floor`, what the bus still remembers."""
        name = "/".join(stream)
        epoch = max(self._last.get(name, 0), floor, self._base) + 1
        self._last[name] = epoch
        self._write()
        return epoch

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_tally(self._path, self._last)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}; check the state folder") from error
