"""Keeps the list of keys on the bus: signed, as the state folder has it, whoever writes something else there."""

from __future__ import annotations

from pathlib import Path

from splitbus_gateway.key_book import read_book
from splitbus_gateway.signing import Signer
from splitbus_runtime.bus import Bus
from splitbus_runtime.keyring import Known, read_keys
from splitbus_schemas.messages import KeyList
from splitbus_schemas.topics import KEYS


class KeyService:
    """Belongs to the daemon's thread. `known` is what was published last; nothing is, as long as there is no list.

    A gateway that has none of its own goes by the list that stands on the bus, if its key signed it.
    """

    def __init__(self, bus: Bus, signer: Signer, *, site: str, folder: Path) -> None:
        self.known = Known()
        self.topic = KEYS.at(site)
        self._bus, self._signer, self._folder = bus, signer, folder
        self._said: bytes | None = None
        self._heard = b""

    def begin(self) -> None:
        """From now on it is for us to say: the list is said anew."""
        self._said = None

    def refresh(self) -> bool:
        """Publish the list when it is another one, or stands there no more; whether keys changed.

        Raises ConfigError for a list that cannot be read, DecodeError for one of another's on the bus.
        """
        keys = read_book(self._folder)
        if keys is None:
            return self._adopt()
        payload = self._signer.seal(self.topic, keys)
        if payload == self._said:
            return False
        if not self._bus.publish(self.topic, payload, qos=KEYS.qos, retain=KEYS.retain):
            return False
        self._said, self.known = payload, read_keys(keys)
        return True

    def note(self, payload: bytes) -> None:
        """What stands on the bus; a list that is not ours is written over at the next refresh."""
        self._heard = payload
        if payload != self._said:
            self._said = None

    def _adopt(self) -> bool:
        heard, self._heard = self._heard, b""
        if not heard:
            return False
        self.known = read_keys(KeyList.from_json(self._signer.open(self.topic, heard)))
        return True
