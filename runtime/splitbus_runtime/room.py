"""Whether a node's disk has room: what was refused for want of it is tried again when there is some."""

from __future__ import annotations

from typing import Final

from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import NoRoomError, SplitbusError

LOOK_SECONDS: Final = 1.0
"""A full disk is looked at so often."""

WANTED_BYTES: Final = 2**20
"""With less, whatever is tried next would fail again soon."""


class Room:
    """Whether want of room has stopped something. To find out, a file is reserved and removed; nothing is fetched."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.full = ""
        """Why nothing more can be kept; empty while something can, as far as is known."""

    def note(self, error: SplitbusError) -> bool:
        """Take a failure; whether it is news that the disk is full."""
        if not isinstance(error, NoRoomError):
            return False
        news, self.full = not self.full, str(error)
        return news

    def returned(self) -> bool:
        """Look; True when there was none and there is now."""
        if not self.full or not self._store.has_room(WANTED_BYTES):
            return False
        self.full = ""
        return True
