"""Whose keys count: the list that the gateway signed last, kept on disk, so that an old one never comes back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from splitbus_runtime.bus import Bus, Delivery
from splitbus_runtime.trust import Trust
from splitbus_runtime.whole_file import write_whole
from splitbus_schemas.errors import DecodeError, SealError
from splitbus_schemas.messages import KeyList
from splitbus_schemas.seal_keys import key_id, read_public
from splitbus_schemas.topics import KEYS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """A list of keys, as it is looked up."""

    epoch: int = 0
    required: bool = False
    keys: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    """Public keys, by node and the key's id."""
    workers: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()

    def must_seal(self, device: str) -> bool:
        """Whether a frame of the device that is not sealed is none of its own, or not wanted."""
        return self.required or device in self.devices


def read_keys(keys: KeyList) -> Known:
    """The list, ready for use. Raises ConfigError for what is no key."""
    found = {}
    for node in keys.nodes:
        for text in node.keys:
            public = read_public(text)
            found[node.node, key_id(public)] = public
    return Known(
        keys.epoch,
        keys.required,
        found,
        frozenset(node.node for node in keys.nodes if node.role == "worker"),
        frozenset(node.node for node in keys.nodes if node.role == "device"),
    )


class Keyring:
    """The newest list that a trusted gateway signed; `known` is replaced whole, so a packet sees one list only.

    `changed` is called after each new list, on the bus's thread.
    """

    def __init__(self, trust: Trust, *, site: str, path: Path) -> None:
        self.known = Known()
        self.changed: Callable[[], None] = lambda: None
        self._trust, self._path, self._topic = trust, path, KEYS.at(site)
        self._lock = threading.Lock()
        self._restore()

    def follow(self, bus: Bus, refuse: Callable[[str, DecodeError], None]) -> None:
        """Take every list that is published; what cannot be believed goes to `refuse`."""

        def take(delivery: Delivery) -> None:
            try:
                self.take(delivery.payload)
            except DecodeError as error:
                refuse(delivery.topic, error)

        bus.subscribe(self._topic, take, qos=1)

    def take(self, payload: bytes) -> None:
        """A list from the bus; an empty one, which nobody signs, changes nothing.

        Raises SignatureError, SealError for one that is older than ours, DecodeError.
        """
        if not payload:
            return
        known = self._read(payload)
        with self._lock:
            if known.epoch < self.known.epoch:
                raise SealError(
                    "stale_keys", f"the list of keys has epoch {known.epoch}, and {self.known.epoch} was here already"
                )
            if known.epoch == self.known.epoch:
                return
            self.known = known
            self._keep(payload)
        self.changed()

    def _read(self, payload: bytes) -> Known:
        return read_keys(KeyList.from_json(self._trust.open(self._topic, payload)))

    def _restore(self) -> None:
        """What was kept; a damaged file, or one of a gateway that is trusted no more, counts as none."""
        try:
            self.known = self._read(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, DecodeError) as error:
            log.warning("%s is not used: %s", self._path, error)

    def _keep(self, payload: bytes) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, payload)
        except OSError as error:
            log.warning("%s cannot be written, an older list of keys may be believed: %s", self._path, error.strerror)
